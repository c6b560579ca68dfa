"""Every module of this room calculates on one thread."""

from tests.support.threads import one_thread

__all__ = ["one_thread"]
