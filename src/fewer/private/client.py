"""The client's side: it encrypts, sends, and decrypts. What it sends is made by two functions that see no secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.keys import Public, load_secret
from fewer.private.wire import pack, unpack

__all__ = ["Query", "Transport", "session_message"]

_LARGEST = 64_000_000  # bytes of an answer; a ciphertext of the largest degree has an eighth of it


class Transport(Protocol):
    """What brings a message to the server and its answer back."""

    def __call__(self, path: str, body: bytes) -> bytes:
        """Post."""
        ...


def session_message(public: Public, keys: dict[str, bytes], name: str) -> bytes:
    """The evaluation keys, as they are sent."""
    return pack({"circuit": public.circuit, "key": name}, [keys["relin"], keys["galois"]])


class Query:
    """A session with a server.

    Parameters
    ----------
    folder
        Of keys, see :func:`~fewer.private.keys.save_keys`.
    transport
        See :func:`over_http`.
    """

    def __init__(self, folder: str | Path, transport: Transport) -> None:
        from fewer.private.seal import Client

        self.public, secret, keys, self.key = load_secret(folder)
        self._client, self._transport = Client(self.public.parameters, secret), transport
        self.sent = 0
        header, _ = unpack(self._post("/sessions", session_message(self.public, keys, self.key)))
        if not header.get("session"):
            raise FewerError("the server's answer names no session; is it one of: fewer private serve")
        self.session = header["session"]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Results for one image, preprocessed as the network takes it.

        Raises
        ------
        FewerError
            With the server's sentence, or when the answer cannot have been made with this key.
        """
        blobs = [self._client.encrypt(v) for v in self.public.pack(image)]
        header = {"session": self.session, "key": self.key, "once": secrets.token_hex(16)}
        _, answer = unpack(self._post("/queries", pack(header, blobs)))
        if len(answer) != 1:
            raise FewerError("the server's answer holds no result; ask again")
        slots = self._client.decrypt(answer[0])
        result = slots[self.public.outputs]
        if not np.isfinite(slots).all() or self._is_noise(slots, result):
            raise FewerError(
                "the answer cannot be decrypted with this key: it is noise; use the folder of its own keys"
            )
        return result

    def _is_noise(self, slots: np.ndarray, result: np.ndarray) -> bool:
        """Results of a linear layer are repeated through the slots; what another key decrypts is not."""
        n = len(result)
        if not np.array_equal(self.public.outputs, np.arange(n)):
            return bool(np.abs(result).max() > 1e6)
        repeats = slots.reshape(-1, 1 << (n - 1).bit_length())[:, :n]
        return bool(np.abs(repeats - result).max() > 0.1 * max(1.0, float(np.abs(result).max())))

    def _post(self, path: str, body: bytes) -> bytes:
        self.sent += len(body)
        return self._transport(path, body)


def over_http(url: str, timeout: float = 300) -> Transport:
    """Messages to a server by HTTP.

    Raises
    ------
    FewerError
        When ``httpx`` is not installed.
    """
    try:
        import httpx
    except ImportError:
        raise FewerError('a client needs httpx; run: pip install "fewer[private]"') from None

    def post(path: str, body: bytes) -> bytes:
        # packed answers are not asked for: a few kilobytes of one unpack to any size
        plain = {"accept-encoding": "identity"}
        try:
            with httpx.stream("POST", url.rstrip("/") + path, content=body, timeout=timeout, headers=plain) as answer:
                found = _limited(answer.iter_raw())
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise FewerError(f"no answer from {url} ({error}); is the server running: fewer private serve") from None
        if answer.status_code != 200:
            raise FewerError(f"the server refused: {found[:300].decode(errors='replace').strip()}")
        return found

    return post


def _limited(parts: Iterable[bytes]) -> bytes:
    """An answer that is received, as long as it is no larger than any that this package gives."""
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > _LARGEST:
            raise FewerError(f"the server's answer is larger than {_LARGEST / 1e6:.0f} MB, and none of fewer's is")
        kept.append(part)
    return b"".join(kept)
