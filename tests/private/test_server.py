"""Client and server over HTTP in one process: answers, refusals, and what the server never gets."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.private.compile import compile_circuit
from fewer.private.keys import Public, load_circuit, load_secret, save_circuit, save_keys
from fewer.private.wire import pack, unpack

pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
testclient = pytest.importorskip("fastapi.testclient", reason='the server needs pip install "fewer[private]"')

from fewer.private.client import Query, session_message  # noqa: E402
from fewer.private.seal import make_keys  # noqa: E402
from fewer.private.server import Limits, Refused, Service, make_app  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    circuit, parameters = compile_circuit(net, torch.randn(30, 1, 4, 4))
    folder = tmp_path_factory.mktemp("private")
    public = save_circuit(folder / "circuit", circuit, parameters, "tiny")
    for name in ("keys", "others"):
        save_keys(folder / name, public)
    return folder


def server(place: Path, limits: Limits | None = None):
    service = Service(*load_circuit(place / "circuit"), limits)
    return service, testclient.TestClient(make_app(service))


class Wire:
    """A transport that keeps what was sent, and may spoil it."""

    def __init__(self, http) -> None:
        self.http, self.sent, self.spoil = http, [], lambda body: body

    def __call__(self, path: str, body: bytes) -> bytes:
        body = self.spoil(body)
        self.sent.append(body)
        answer = self.http.post(path, content=body)
        if answer.status_code != 200:
            raise FewerError(f"{answer.status_code} {answer.text}")
        return answer.content


def test_an_answer_is_that_of_the_circuit_and_no_secret_is_sent(place: Path) -> None:
    service, http = server(place)
    wire = Wire(http)
    query = Query(place / "keys", wire)
    image = np.random.default_rng(0).normal(size=(1, 4, 4))
    assert np.abs(query(image) - service.circuit.run(image[None])[0]).max() < 1e-3
    assert Public.from_json(http.get("/circuit").text).circuit == service.public.circuit
    # the folder of keys and the wire: nothing that could be the secret key, whole or in part
    secret = (place / "keys" / "secret.key").read_bytes()
    sent = b"".join(wire.sent)
    body = secret[16:]
    assert all(body[i : i + 32] not in sent for i in range(0, len(body) - 32, 997))
    assert (place / "keys" / "secret.key").stat().st_mode & 0o077 == 0
    assert not any("secret" in name for name in vars(service))


def test_every_bad_request_is_one_sentence_and_a_status_of_4xx(place: Path) -> None:
    _service, http = server(place)
    wire = Wire(http)
    query = Query(place / "keys", wire)
    image = np.zeros((1, 4, 4))
    query(image)
    good = wire.sent[-1]
    header, blobs = unpack(good)

    def refused(status: int, words: str, body: bytes, path: str = "/queries") -> None:
        answer = http.post(path, content=body)
        assert answer.status_code == status and words in answer.text and "\n" not in answer.text, answer.text

    refused(409, "has been answered already", good)
    refused(400, "cut off", good[:-500])
    refused(400, "not one of fewer private", b"\x00" * 900)
    refused(400, "not one of fewer private", b"")
    refused(404, "not open", pack({**header, "session": "x", "once": "a" * 32}, blobs))
    refused(409, "another key", pack({**header, "key": "x", "once": "b" * 32}, blobs))
    refused(400, "1 ciphertexts", pack({**header, "once": "c" * 32}, [*blobs, *blobs]))
    refused(400, "cut off or is none", pack({**header, "once": "d" * 32}, [blobs[0][:-7]]))
    spoilt = bytearray(blobs[0])
    spoilt[40:60] = b"\xff" * 20
    refused(400, "does not belong", pack({**header, "once": "e" * 32}, [bytes(spoilt)]))
    public, _, keys, name = load_secret(place / "keys")
    refused(400, "cut off", session_message(public, {**keys, "relin": keys["relin"][:999]}, name), "/sessions")
    refused(409, "another circuit", pack({"circuit": "x", "key": name}, list(keys.values())), "/sessions")
    query(image)  # the session has survived all of it


def test_sizes_are_limited_before_they_are_read(place: Path) -> None:
    _service, http = server(place, Limits(key_bytes=1000, query_bytes=500))
    assert http.post("/queries", content=b"x" * 501).status_code == 413
    assert http.post("/sessions", content=b"x" * 1001).status_code == 413
    assert http.post("/queries", content=iter([b"x" * 300] * 3)).status_code == 413  # no length told


def test_another_clients_key_gives_noise_that_is_told(place: Path) -> None:
    _service, http = server(place)
    wire = Wire(http)
    query = Query(place / "keys", wire)
    thief = Query(place / "others", wire)
    query(np.zeros((1, 4, 4)))
    _, blobs = unpack(wire.sent[-1])
    thief._client.encrypt = lambda _v: blobs[0]  # replays what somebody else encrypted, under its own session
    with pytest.raises(FewerError, match="it is noise"):
        thief(np.zeros((1, 4, 4)))


def test_fifty_waiting_queries_are_bounded(place: Path) -> None:
    service, _ = server(place, Limits(waiting=3))
    opened = unpack(service.open(session_message(*_keys(place))))[0]["session"]
    session = service._sessions[opened]
    gate = threading.Event()
    session.runner = type("Slow", (), {"backend": session.runner.backend, "__call__": lambda _s, _x: gate.wait(5)})()
    statuses: list[int] = []

    def ask(i: int) -> None:
        try:
            service.query(pack({"session": opened, "key": session.key, "once": f"{i:032}"}, [b""]))
        except Refused as error:
            statuses.append(error.status)

    service._one.acquire()
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads[4:]:
        thread.join(0.02)
    assert service._waiting <= 4 and statuses.count(429) >= 40
    gate.set()
    service._one.release()
    for thread in threads:
        thread.join(5)


def test_fifty_uploads_at_once_are_bounded_before_their_bodies_are_in_memory(place: Path) -> None:
    service, _ = server(place, Limits(waiting=3, query_bytes=10_000))
    app, held, statuses = make_app(service), [0, 0], []

    async def upload(path: str, go: asyncio.Event) -> None:
        parts = 0

        async def receive() -> dict:
            nonlocal parts
            parts += 1
            held[0] += 1  # this request is being taken into memory
            held[1] = max(held[1], held[0])
            if parts > 1:
                await go.wait()
            return {"type": "http.request", "body": b"x" * 1000, "more_body": parts < 2}

        async def send(message: dict) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [],
            "query_string": b"",
            "http_version": "1",
        }
        await app({**scope, "asgi": {"version": "3.0"}, "scheme": "http", "server": ("a", 1)}, receive, send)

    async def crowd(path: str) -> None:
        go = asyncio.Event()
        waiting = [asyncio.create_task(upload(path, go)) for _ in range(50)]
        while len(statuses) < 46:
            await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(*waiting)

    asyncio.run(crowd("/queries"))
    assert statuses.count(429) == 46 and statuses.count(400) == 4  # what was taken is no message
    assert held[1] <= 2 * 4
    statuses.clear()
    asyncio.run(crowd("/sessions"))
    assert statuses.count(429) == 49  # keys are large: one client at a time
    assert service._receiving == {"keys": 0, "queries": 0} and service._waiting == 0


def test_what_a_session_remembers_is_bounded(place: Path) -> None:
    _service, http = server(place, Limits(answers=2))
    wire = Wire(http)
    query = Query(place / "keys", wire)
    image = np.zeros((1, 4, 4))
    query(image), query(image)
    header, blobs = unpack(wire.sent[-1])
    answer = http.post("/queries", content=pack({**header, "once": "a" * 65}, blobs))
    assert answer.status_code == 409
    with pytest.raises(FewerError, match=r"404 .* all its answers"):
        query(image)
    assert Query(place / "keys", wire)(image).shape == (3,)


def test_a_circuit_of_other_primes_than_its_parameters_is_told(place: Path) -> None:
    circuit, public = load_circuit(place / "circuit")
    wrong = replace(public.parameters, bits=(40, *[26] * public.parameters.levels, 40), scale_bits=26, input_bits=26)
    service = Service(circuit, replace(public, parameters=wrong))
    _, made = make_keys(wrong, public.turns)
    with pytest.raises(Refused, match="made for another circuit") as refused:
        service.open(session_message(service.public, made, "k"))
    assert refused.value.status == 400


def _keys(place: Path) -> tuple:
    public, _, keys, name = load_secret(place / "keys")
    return public, keys, name


def test_keys_are_not_overwritten(place: Path) -> None:
    with pytest.raises(FewerError, match="a new key would make old answers unreadable"):
        save_keys(place / "keys", load_secret(place / "keys")[0])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"x" * 70_000_000, 200, "larger than 64 MB"),
        (b"no \x1b[2J " + b"y" * 900, 500, "the server refused: no"),
        (pack({}, []), 200, "names no session"),
        (pack({"session": ""}, []), 200, "names no session"),
        (b"<html>", 200, "not one of fewer private"),
    ],
)
def test_a_server_that_answers_oddly_is_told(place: Path, monkeypatch, body, status, says) -> None:
    import httpx

    from fewer.private.client import over_http

    def answer(request):
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(status, content=(body[i : i + 2**20] for i in range(0, len(body), 2**20)))

    http = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "stream", http.stream)
    with pytest.raises(FewerError, match=says) as error:
        Query(place / "keys", over_http("http://localhost:1"))
    assert len(str(error.value)) < 500


def test_an_answer_that_was_packed_is_not_unpacked(place: Path, monkeypatch) -> None:
    import gzip

    import httpx

    from fewer.private.client import over_http

    small = gzip.compress(b"x" * 10_000_000)
    http = httpx.Client(
        transport=httpx.MockTransport(
            lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(small))
        )
    )
    monkeypatch.setattr(httpx, "stream", http.stream)
    with pytest.raises(FewerError, match="not one of fewer private"):
        Query(place / "keys", over_http("http://localhost:1"))


@pytest.mark.parametrize(
    "url", ["http://[::1", "ftp://localhost", "localhost", "", "http://a b", "http://\x00", "http://" + "a" * 300]
)
def test_an_address_that_is_none_is_told(url) -> None:
    from fewer.private.client import over_http

    with pytest.raises(FewerError, match="no answer from"):
        over_http(url)("/circuit", b"")


def test_keys_that_are_no_files_are_told(place: Path, tmp_path: Path) -> None:
    import os
    import shutil

    shutil.copytree(place / "keys", tmp_path / "keys")
    (tmp_path / "keys" / "galois.key").unlink()
    os.mkfifo(tmp_path / "keys" / "galois.key")
    with pytest.raises(FewerError, match="no ordinary file"):
        load_secret(tmp_path / "keys")


@pytest.mark.parametrize(
    "body", [b"[]\n", b"[1]\n", b'"x"\n', b"3\n", b"null\n", b'{"sizes": {}}\n', b'{"sizes": [[]]}\n']
)
@pytest.mark.parametrize("path", ["/sessions", "/queries"])
def test_messages_that_are_none_are_answered_with_a_sentence(place: Path, body, path) -> None:
    _, http = server(place)
    answer = http.post(path, content=body)
    assert answer.status_code == 400 and "not one of fewer private" in answer.text
    assert http.post(path, content=b"x", headers={"content-length": "9" * 5000}).status_code == 413


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.full((1, 4, 4), np.nan), "NaN or infinite"), (np.full((1, 4, 4), np.inf), "NaN or infinite"),
        (np.full((1, 4, 4), 1e300), "does not fit into a ciphertext"), (np.array(["x"] * 16), "real numbers"),
        (np.array([None] * 16), "real numbers"), (np.zeros((1, 4, 4)) + 1j, "real numbers"),
        (np.zeros((3, 4, 4)), "the circuit takes"), ("nope.png", "cannot be read"), ([[0] * 16], "a file or an array"),
        (None, "a file or an array"), (3, "a file or an array"),
    ],
)  # fmt: skip
def test_images_that_are_none_are_told(place: Path, image, says) -> None:
    from fewer.verbs.private import private_query

    _, http = server(place)
    with pytest.raises(FewerError, match=says):
        private_query(place / "keys", [image], Wire(http))


def test_tensors_are_arrays_and_one_image_is_no_list(place: Path) -> None:
    from fewer.verbs.private import private_query

    _, http = server(place)
    x = torch.zeros(1, 4, 4, requires_grad=True)
    rows = private_query(place / "keys", [x, x.detach().numpy()], Wire(http))
    assert np.allclose(rows[0]["scores"], rows[1]["scores"], atol=1e-3)
    for images in ("a.png", None, Path("a.png")):
        with pytest.raises(FewerError, match="put a single one into a list"):
            private_query(place / "keys", images, Wire(http))


def post(app, parts: list[dict], path: str = "/queries") -> list[int]:
    """Statuses of one request whose body arrives in parts; a part of None never does."""
    statuses: list[int] = []

    async def receive() -> dict:
        if parts[0] is None:
            await asyncio.sleep(3600)
        return parts.pop(0)

    async def send(message: dict) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "http_version": "1"}
    asyncio.run(app({**scope, "asgi": {"version": "3.0"}, "scheme": "http", "server": ("a", 1)}, receive, send))
    return statuses


def test_a_client_that_goes_away_or_never_ends_makes_room_for_others(place: Path) -> None:
    service, http = server(place, Limits(seconds=0.05))
    app, begun = make_app(service), {"type": "http.request", "body": b"abc", "more_body": True}
    for path in ("/queries", "/sessions"):
        assert post(app, [dict(begun), {"type": "http.disconnect"}], path) == [400]
        assert post(app, [dict(begun), None], path) == [408]
    assert service._receiving == {"keys": 0, "queries": 0}
    assert http.post("/queries", content=b"abc").status_code == 400
