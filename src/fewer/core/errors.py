"""The one exception that a user is meant to read."""

from __future__ import annotations


class FewerError(Exception):
    """What was wrong, where, the nearest valid name and one fix, in one clear sentence.

    The command line prints it without a traceback and leaves with exit code 2.
    """
