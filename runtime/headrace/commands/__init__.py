"""The commands of the program, one module a theme; `headrace.cli` puts them together."""
