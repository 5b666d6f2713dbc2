"""Turns a recipe into a bundle: capture, export, prove, package."""
