"""Ray Serve: the application and its life on this machine. The only room that imports ray."""
