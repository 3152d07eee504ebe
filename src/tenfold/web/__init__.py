"""Labelling pages: a server for one person on this machine, what it keeps, and its static files."""
