"""Turns claims into numbers: measurements that anyone can rerun with one command."""
