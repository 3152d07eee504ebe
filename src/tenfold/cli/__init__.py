"""The command line: one file a verb, each importing what is heavy when it is asked."""

from .app import VERBS, main

__all__ = ["VERBS", "main"]
