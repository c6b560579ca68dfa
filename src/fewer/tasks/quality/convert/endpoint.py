"""A language model behind an endpoint of OpenAI's protocol, and a memory of what a writer has answered already."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.reading import parse_json, read_text
from fewer.study.pathway import Pathway
from fewer.tasks.quality.convert.writers import Writer, instruction

__all__ = ["EndpointWriter", "KeptWriter"]

_WAITS = (1.0, 4.0, 15.0)
"""Seconds before a server that is busy is asked again."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 60.0
_LARGEST = 2**22  # bytes of an answer
_ADVICE = {
    401: "; the key is read from OPENAI_API_KEY",
    403: "; the key is read from OPENAI_API_KEY",
    404: "; give the address up to /v1, and the model by its name there",
}


class _Refused(FewerError):
    """What was asked is not taken as it is."""


class EndpointWriter:
    """A language model behind an endpoint that speaks OpenAI's protocol for chats.

    A server that is busy or breaks off is asked again three times. One that is not there when it is asked for the first
    time is not waited for.

    Parameters
    ----------
    url
        Up to and with ``/v1``, such as ``http://localhost:8080/v1``.
    model
        Its name there.
    key
        Sent as a bearer token; read it from the environment, never from a file of the project.
    send
        Posts JSON to a URL and returns JSON; for tests.
    pause
        Waits so many seconds; for tests.

    Examples
    --------
    >>> writer = EndpointWriter("http://x/v1", "m", send=lambda *_: {"choices": [{"message": {"content": "[]"}}]})
    >>> writer.write("yes-no", Pathway("a", "r", "Blurry.", "Bad."), 0)
    '[]'
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        timeout: float = 120.0,
        send: Callable[..., Any] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise FewerError(f"the endpoint {url!r} must begin with http:// or https://")
        key = key.strip()
        if not key.isascii() or not key.isprintable():
            raise FewerError("the key in OPENAI_API_KEY holds characters that no key has")
        self.url, self.name, self._key, self.timeout = url.rstrip("/"), model, key, timeout
        self._send, self._pause = send or self._post, pause
        self._answered, self._plain = False, False

    def ask(self, prompt: str, attempt: int = 0) -> str:
        """The model's answer to one message; empty where it says nothing.

        Raises
        ------
        FewerError
            When the endpoint does not answer in its protocol.
        """
        body: dict[str, Any] = {"model": self.name, "messages": [{"role": "user", "content": prompt}]}
        how = {"temperature": 0.0 if attempt == 0 else 0.7, "seed": attempt}
        where = f"{self.url}/chat/completions"
        try:
            told = self._send(where, body if self._plain else body | how)
        except _Refused:
            if self._plain:
                raise
            told = self._send(where, body)  # some models take neither a temperature nor a seed
            self._plain = True
        try:
            said = told["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            why = _message(told)
            why = f" ({why})" if why else ""
            raise FewerError(
                f"{self.url} gave no answer of a chat{why}; is it an OpenAI-compatible endpoint?"
            ) from None
        self._answered = True
        if isinstance(said, list):
            said = "".join(str(part.get("text", "")) for part in said if isinstance(part, Mapping))
        return said if isinstance(said, str) else ""

    def write(self, kind: str, pathway: Pathway, attempt: int) -> str:
        """See :class:`Writer`; nothing for a text that the server refuses, where it took others."""
        try:
            return self.ask(instruction(kind, pathway), attempt)
        except _Refused:
            if not self._answered:
                raise
            return ""

    def _post(self, url: str, body: Any) -> Any:
        """Send until there is an answer, or it is clear that there will be none."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = json.dumps(body).encode()
        for left in range(len(_WAITS), -1, -1):
            wait = _WAITS[len(_WAITS) - left] if left else 0.0
            try:
                request = urllib.request.Request(url, data, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    text = answer.read(_LARGEST + 1)
                    if answer.length and len(text) <= _LARGEST:  # it broke off
                        raise http.client.IncompleteRead(text, answer.length)
            except urllib.error.HTTPError as error:
                why = _reason(error)
                if error.code in (400, 422):
                    raise _Refused(f"{url} refuses what was asked ({error.code}{why})") from None
                if not left or error.code not in _BUSY:
                    raise FewerError(
                        f"{url} gives no answer ({error.code}{why}){_ADVICE.get(error.code, '')}"
                    ) from None
                wait = max(wait, _asked_to_wait(error))
            except (OSError, http.client.HTTPException, ValueError) as error:
                never = isinstance(error, (ValueError, http.client.InvalidURL)) or not self._answered
                if (never and not isinstance(error, (TimeoutError, http.client.IncompleteRead))) or not left:
                    why = str(getattr(error, "reason", error)) or type(error).__name__
                    raise FewerError(f"{url} does not answer ({why}); is the server running?") from None
            else:
                if len(text) > _LARGEST:
                    raise FewerError(f"{url} gave an answer of more than {_LARGEST >> 20} MiB, which is none of a chat")
                return parse_json(text, f"the answer of {url}")
            self._pause(wait)
        raise AssertionError("the last try has returned or raised")


def _asked_to_wait(error: urllib.error.HTTPError) -> float:
    """Seconds that a server asks for, as far as they are sensible."""
    try:
        return min(max(float(error.headers.get("Retry-After", 0)), 0.0), _LONGEST_WAIT)
    except ValueError:  # a date
        return 0.0


def _reason(error: urllib.error.HTTPError) -> str:
    """What a server says about an error, in front of which stands a comma."""
    try:
        text = error.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    with contextlib.suppress(ValueError, RecursionError):
        text = _message(json.loads(text)) or text
    short = " ".join(text.split())[:200]
    return f", {short}" if short and not short.startswith("<") else f", {error.reason}" if error.reason else ""


def _message(told: Any) -> str:
    """The words of an error in the JSON of a server; empty where there are none."""
    for key in ("error", "detail", "message"):
        value = told.get(key) if isinstance(told, Mapping) else None
        if value:
            return " ".join(str(value.get("message", value) if isinstance(value, Mapping) else value).split())[:200]
    return ""


class KeptWriter:
    """Writes down what another writer answers, so that a conversion that ended midway asks for nothing twice.

    Parameters
    ----------
    writer
        Who answers.
    path
        The file of answers, one line of JSON each; half a line at its end does no harm.

    Examples
    --------
    >>> import tempfile
    >>> from fewer.tasks.quality.convert.writers import RuleWriter
    >>> kept = KeptWriter(RuleWriter(), Path(tempfile.mkdtemp()) / "answers.jsonl")
    >>> text = kept.write("yes-no", Pathway("a", "r", "The cat is blurry.", "It is poor."), 0)
    >>> kept.path.read_text().count("\\n")
    1
    """

    def __init__(self, writer: Writer, path: Path) -> None:
        self.writer, self.path, self.name = writer, path, writer.name
        self._kept: dict[str, str] = {}
        if path.is_file():
            for line in read_text(path, 2**31, "list of answers").split("\n"):
                try:
                    key, text = json.loads(line)
                    self._kept[str(key)] = str(text)
                except (ValueError, TypeError):
                    continue

    def write(self, kind: str, pathway: Pathway, attempt: int) -> str:
        """See :class:`Writer`.

        Raises
        ------
        FewerError
            Of the writer; the sentence says where its answers so far are.
        """
        asked = [self.name, getattr(self.writer, "url", ""), kind, pathway.text, attempt]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        if key not in self._kept:
            try:
                text = self.writer.write(kind, pathway, attempt)
            except FewerError as error:
                if not self._kept:
                    raise
                raise FewerError(
                    f"{error} The {len(self._kept)} answers so far are kept in {self.path}: the same command goes on"
                ) from None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn() + json.dumps([key, text]) + "\n")
            self._kept[key] = text
        return self._kept[key]

    def _torn(self) -> bool:
        """Whether the file ends within a line."""
        if not self.path.is_file() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"

    def done(self) -> None:
        """Nothing has to be kept any more."""
        self.path.unlink(missing_ok=True)
