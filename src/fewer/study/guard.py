"""What keeps the server of a study safe: allowed hosts, headers, the origin of forms, and a limit of requests."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

__all__ = ["HEADERS", "Limit", "host_allowed", "origin_allowed"]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every page."""


class Limit:
    """So many requests in a minute for each key, as a bucket that fills up again.

    Parameters
    ----------
    per_minute
        Requests.
    clock
        Seconds.
    most
        Keys that are remembered; the oldest are forgotten.

    Examples
    --------
    >>> limit = Limit(2, clock=lambda: 0.0)
    >>> [limit.allows("a") for _ in range(3)]
    [True, True, False]
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic, most: int = 10_000) -> None:
        self.rate, self.size, self.clock, self.most = per_minute / 60, float(per_minute), clock, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def open(self, key: str) -> bool:
        """Whether one more request may come; it is not counted."""
        left, when = self._left.get(key, (self.size, 0.0))
        return key not in self._left or left + (self.clock() - when) * self.rate >= 1

    def allows(self, key: str) -> bool:
        """Whether one more request may come; it is counted."""
        now = self.clock()
        left, when = self._left.pop(key, (self.size, now))
        left = min(self.size, left + (now - when) * self.rate)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        while len(self._left) > self.most:
            self._left.popitem(last=False)
        return allowed


def host_allowed(host: str, names: frozenset[str]) -> bool:
    """Whether the Host header names this server; anything else may be another site that points its name here.

    Examples
    --------
    >>> host_allowed("localhost:8000", frozenset({"localhost"})), host_allowed("evil.example", frozenset({"localhost"}))
    (True, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in names


def origin_allowed(origin: str, host: str) -> bool:
    """Whether a form came from a page of this server; browsers always say where a form came from.

    Examples
    --------
    >>> origin_allowed("http://localhost:80", "localhost:80"), origin_allowed("http://evil.example", "localhost:80")
    (True, False)
    >>> origin_allowed("http://[::1", "localhost:80")
    False
    """
    try:
        return not origin or urlsplit(origin).netloc == host
    except ValueError:
        return False
