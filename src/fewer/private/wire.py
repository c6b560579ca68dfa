"""What goes over the wire: a line of JSON, then blobs of known length. The secret key has no place in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fewer.core.errors import FewerError

__all__ = ["pack", "unpack"]

_HEADER = 4096


def pack(header: Mapping[str, object], blobs: Sequence[bytes]) -> bytes:
    """A message.

    Examples
    --------
    >>> unpack(pack({"key": "a"}, [b"12", b"3"]))
    ({'key': 'a'}, [b'12', b'3'])
    """
    line = json.dumps({**header, "sizes": [len(b) for b in blobs]}).encode()
    if len(line) >= _HEADER:
        raise FewerError("the header of a message is too long")
    return line + b"\n" + b"".join(blobs)


def unpack(data: bytes) -> tuple[dict[str, str], list[bytes]]:
    """Read a message back.

    Raises
    ------
    FewerError
        When it is cut off, or no message at all.
    """
    end = data.find(b"\n", 0, _HEADER)
    try:
        if end < 0:
            raise ValueError
        header = json.loads(data[:end])
        sizes = header.pop("sizes")
        if not all(isinstance(v, str) for v in header.values()):
            raise ValueError
        if not isinstance(sizes, list) or len(sizes) > 64 or not all(type(s) is int and s >= 0 for s in sizes):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError):
        raise FewerError("the message is not one of fewer private; send it with: fewer private query") from None
    if sum(sizes) != len(data) - end - 1:
        raise FewerError(f"the message is cut off: {len(data) - end - 1} bytes of {sum(sizes)} arrived; send it again")
    blobs, at = [], end + 1
    for size in sizes:
        blobs.append(data[at : at + size])
        at += size
    return header, blobs
