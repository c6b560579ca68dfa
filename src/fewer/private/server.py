"""A small HTTP server for encrypted inference. It holds weights and evaluation keys, never a secret key."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit
from fewer.private.execute import Runner
from fewer.private.keys import Public
from fewer.private.wire import pack, unpack

__all__ = ["Limits", "Service", "make_app"]


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    Attributes
    ----------
    key_bytes, query_bytes
        Of one request.
    sessions
        Clients at once; the one that was quiet for longest makes room.
    waiting
        Queries that are received or wait while one is computed; more are sent away with 429. Keys are received from one
        client at a time.
    answers
        Of one session; then the client sends its keys again. What was answered is remembered for so long.
    seconds
        In which a request has to arrive, so that slow ones do not keep others away.
    """

    key_bytes: int = 1_500_000_000
    query_bytes: int = 64_000_000
    sessions: int = 2
    waiting: int = 8
    answers: int = 100_000
    seconds: float = 600.0


class Refused(Exception):
    """A request that is answered with a status of 4xx and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


_ONCE = 64
"""Characters of the random name of a query at most: the server remembers it."""


@dataclass
class _Session:
    key: str
    runner: Any
    seen: set[str] = field(default_factory=set)


class Service:
    """Sessions and queries, without HTTP, so that it can be tested and put behind another server.

    Parameters
    ----------
    circuit
        With its weights.
    public
        What clients are told.
    limits
        See :class:`Limits`.
    """

    def __init__(self, circuit: Circuit, public: Public, limits: Limits | None = None) -> None:
        self.circuit, self.public, self.limits = circuit, public, limits or Limits()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock, self._one = threading.Lock(), threading.Lock()
        self._waiting = 0
        self._receiving = {"keys": 0, "queries": 0}

    @contextmanager
    def receiving(self, what: str) -> Iterator[None]:
        """While a request is taken into memory and answered, so that only so many are there at once.

        Raises
        ------
        Refused
            With 429, when there are enough.
        """
        with self._lock:
            if self._receiving[what] > (0 if what == "keys" else self.limits.waiting):
                raise Refused(429, f"too many {what} are waiting; try again in a few seconds")
            self._receiving[what] += 1
        try:
            yield
        finally:
            with self._lock:
                self._receiving[what] -= 1

    def open(self, body: bytes) -> bytes:
        """Take the evaluation keys of a client; the answer names the session."""
        from fewer.private.seal import Evaluator

        try:
            header, blobs = unpack(body)
            if header.get("circuit") != self.public.circuit:
                raise Refused(409, "the keys were made for another circuit; make new ones with: fewer private keys")
            if len(blobs) != 2 or not _is_name(header.get("key", ""), 1):
                raise Refused(400, "a session takes a relinearisation key and rotation keys")
            evaluator = Evaluator(self.public.parameters, *blobs)
            runner = Runner(self.circuit, evaluator)
        except FewerError as error:
            raise Refused(400, str(error)) from None
        name = secrets.token_urlsafe(24)
        with self._lock:
            while len(self._sessions) >= self.limits.sessions:
                self._sessions.popitem(last=False)
            self._sessions[name] = _Session(header["key"], runner)
        return pack({"session": name}, [])

    def query(self, body: bytes) -> bytes:
        """Run the circuit on a query."""
        try:
            header, blobs = unpack(body)
        except FewerError as error:
            raise Refused(400, str(error)) from None
        with self._lock:
            name = header.get("session", "")
            session = self._sessions.get(name)
            if session is None:
                raise Refused(404, "this session is not open (any more); send the evaluation keys again")
            self._sessions.move_to_end(name)
            if header.get("key") != session.key:
                raise Refused(409, "the query was encrypted with another key than the session's")
            once = header.get("once", "")
            if not _is_name(once, 16) or once in session.seen:
                raise Refused(409, "this query has been answered already; encrypt the image again")
            if len(session.seen) >= self.limits.answers:
                del self._sessions[name]
                raise Refused(404, "this session has given all its answers; send the evaluation keys again")
            if self._waiting > self.limits.waiting:
                raise Refused(429, "too many queries are waiting; try again in a few seconds")
            session.seen.add(once)
            self._waiting += 1
        try:
            if len(blobs) != self.circuit.input_ciphertexts:
                raise Refused(400, f"a query has {self.circuit.input_ciphertexts} ciphertexts, not {len(blobs)}")
            with self._one:
                return self._run(session, blobs)
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self, session: _Session, blobs: list[bytes]) -> bytes:
        from fewer.private.seal import to_bytes

        try:
            inputs = [session.runner.backend.load(blob) for blob in blobs]
            return pack({}, [to_bytes(session.runner(inputs))])
        except FewerError as error:
            raise Refused(400, str(error)) from None
        except (RuntimeError, ValueError) as error:
            raise Refused(400, f"the circuit cannot be run with these keys ({error})") from None


def _is_name(value: str, least: int) -> bool:
    """Whether what a client calls something may be kept by the server."""
    return least <= len(value) <= _ONCE


def make_app(service: Service) -> Any:
    """A FastAPI application: ``GET /circuit``, ``POST /sessions``, ``POST /queries``; bodies as in ``wire.py``.

    Raises
    ------
    FewerError
        When FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request, Response
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import ClientDisconnect
    except ImportError:
        raise FewerError('a server needs FastAPI; run: pip install "fewer[private]"') from None
    app = FastAPI(title="fewer private", docs_url=None, redoc_url=None, openapi_url=None)

    async def body_of(request: Any, most: int) -> bytes:
        try:
            return await asyncio.wait_for(parts_of(request, most), service.limits.seconds)
        except asyncio.TimeoutError:
            raise Refused(
                408, f"the request did not arrive within {service.limits.seconds:g} s; send it again"
            ) from None
        except ClientDisconnect:
            raise Refused(400, "the request is cut off; send it again") from None

    async def parts_of(request: Any, most: int) -> bytes:
        told = request.headers.get("content-length", "")
        if told.isdecimal() and (len(told) > 18 or int(told) > most):
            raise Refused(413, f"a request of {told[:18]} bytes is too large; at most {most} are taken")
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise Refused(413, f"the request is too large; at most {most} bytes are taken")
            parts.append(part)
        return b"".join(parts)

    async def refused(_request: Any, error: Any) -> Any:
        return Response(error.sentence, error.status, media_type="text/plain")

    app.add_exception_handler(Refused, refused)

    async def circuit() -> Any:
        return Response(service.public.to_json(), media_type="application/json")

    async def sessions(request: Request) -> Any:
        with service.receiving("keys"):
            body = await body_of(request, service.limits.key_bytes)
            return Response(await run_in_threadpool(service.open, body), media_type="application/octet-stream")

    async def queries(request: Request) -> Any:
        with service.receiving("queries"):
            body = await body_of(request, service.limits.query_bytes)
            return Response(await run_in_threadpool(service.query, body), media_type="application/octet-stream")

    for function in (sessions, queries):  # names in annotations are looked up in the module otherwise
        function.__annotations__["request"] = Request
    app.add_api_route("/circuit", circuit, methods=["GET"], response_model=None)
    app.add_api_route("/sessions", sessions, methods=["POST"], response_model=None)
    app.add_api_route("/queries", queries, methods=["POST"], response_model=None)
    return app
