"""Short stretches of work that Ctrl-C may not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["shield"]


@contextmanager
def shield() -> Iterator[None]:
    """Hold Ctrl-C back until the block is over; in threads other than the main one it never arrives anyway.

    Examples
    --------
    >>> import signal
    >>> done = []
    >>> try:
    ...     with shield():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("whole")
    ... except KeyboardInterrupt:
    ...     done.append("stopped")
    >>> done
    ['whole', 'stopped']
    """
    before: Any = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if before is None:  # not the main thread, or a handler that was not installed from Python
        yield
        return
    waiting: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            signal.raise_signal(signal.SIGINT)
