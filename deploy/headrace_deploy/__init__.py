"""Turns a bundle into a service that is watched and improves; its rooms come with the lifecycle."""
