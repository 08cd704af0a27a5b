"""Malformed requests and replies by the million: `python -m tests.fuzz --requests 1000000`."""
