"""A run as people and machines read it: table, Markdown, JUnit XML, one HTML page."""
