"""Servers under load: started, asked in closed and open loop, weighed, ended."""
