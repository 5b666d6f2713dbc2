"""The steps of a plan: one a file, each a function of its inputs."""
