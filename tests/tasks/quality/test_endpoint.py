"""An endpoint of OpenAI's protocol on this machine that fails in all ways, and what is kept of its answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import fewer
from fewer.core.errors import FewerError
from fewer.study.pathway import Pathway
from fewer.tasks.quality.convert.endpoint import EndpointWriter, KeptWriter
from fewer.tasks.quality.convert.items import parse_list
from fewer.tasks.quality.description import WriterJudge

TEXT = Pathway("a.png", "r", "The cat is very blurry.", "Overall, the quality is poor.")


def chat(said) -> str:
    return json.dumps({"choices": [{"message": {"content": said}}]})


class Server(HTTPServer):
    """Gives the replies that it is told, one after the other, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, str, dict[str, str]]] = []
        self.bodies: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        replies = self.server.replies
        status, text, head = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text.encode())), **head}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def test_a_server_that_is_busy_is_asked_again(server) -> None:
    waits: list[float] = []
    writer = EndpointWriter(server.url, "m", pause=waits.append)
    server.replies = [(429, "{}", {"Retry-After": "7"}), (503, "<html>", {}), (200, chat("yes"), {})]
    assert writer.ask("hi") == "yes" and waits == [7.0, 4.0]
    server.replies = [(200, chat("cut"), {"Content-Length": "9000"}), (200, chat("whole"), {})]
    assert writer.ask("hi") == "whole" and len(waits) == 3  # it broke off within an answer
    server.replies = [(500, '{"error": {"message": "out of\\nmemory"}}', {})]
    with pytest.raises(FewerError, match=r"gives no answer \(500, out of memory\)"):
        writer.ask("hi")
    assert len(waits) == 6


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (401, '{"error": {"message": "bad key"}}', r"\(401, bad key\); the key is read from OPENAI_API_KEY"),
        (404, '{"detail": "no model m"}', r"\(404, no model m\); give the address up to /v1"),
        (400, '{"error": "too long"}', r"refuses what was asked \(400, too long\)"),
        (200, "<html>Hello</html>", "is not valid JSON"),
        (200, '{"error": {"message": "quota"}}', r"gave no answer of a chat \(quota\)"),
        (200, '{"choices": []}', "gave no answer of a chat; is it"),
        (200, "[]", "gave no answer of a chat; is it"),
    ],
)
def test_what_a_server_says_of_a_fault_is_told(server, status, text, says) -> None:
    server.replies = [(status, text, {})]
    with pytest.raises(FewerError, match=says):
        EndpointWriter(server.url, "m", pause=lambda _: pytest.fail("it waits in vain")).ask("hi")


def test_answers_of_other_shapes_and_models_without_a_temperature(server) -> None:
    writer = EndpointWriter(server.url, "m")
    server.replies = [(400, '{"error": "no temperature"}', {}), (200, chat("yes"), {})]
    assert writer.ask("hi") == "yes" and writer.ask("hi") == "yes"
    assert ["temperature" in body for body in server.bodies] == [True, False, False]
    server.replies = [(200, chat([{"type": "text", "text": "y"}, {"type": "text", "text": "es"}]), {})]
    assert writer.ask("hi") == "yes"
    server.replies = [(200, chat(None), {})]
    assert writer.ask("hi") == ""
    server.replies = [(400, '{"error": "not this text"}', {})]
    assert writer.write("yes-no", TEXT, 0) == ""  # the others go on
    for address in ("http://127.0.0.1:0/v1", "http://a b/v1", "http://[::1/v1", "http://x:port/v1"):
        with pytest.raises(FewerError, match="does not answer"):
            EndpointWriter(address, "m", pause=lambda _: pytest.fail("it waits in vain")).ask("hi")
    with pytest.raises(FewerError, match="OPENAI_API_KEY holds characters") as error:
        EndpointWriter(server.url, "m", "secret\u20ac")
    assert "secret" not in str(error.value)


def test_a_conversion_that_ended_midway_asks_for_nothing_twice(server, tmp_path: Path) -> None:
    rows = [
        {"image": f"{i}.png", "rater": "r", "description": f"The cat {i} is very blurry.", "conclusion": "It is poor."}
        for i in range(3)
    ]
    (tmp_path / "pathways.json").write_text(json.dumps(rows))
    asked = json.dumps([{"question": "Is it blurry?", "answer": "Yes"}, {"question": "Is it noisy?", "answer": "No"}])
    server.replies = [*[(200, chat(asked), {})] * 5, (401, '{"error": "no credit"}', {})]
    more = {"writer": server.url, "writer_model": "m"}
    with pytest.raises(FewerError, match=r"no credit.*The 5 answers so far are kept in .*records\.json\.answers"):
        fewer.study_convert(tmp_path / "pathways.json", **more)
    memory = tmp_path / "records.json.answers.jsonl"
    with memory.open("a") as file:
        file.write('["half a line')  # a process that was killed
    server.replies, server.bodies = [(200, chat(asked), {})], []
    done = fewer.study_convert(tmp_path / "pathways.json", **more)
    assert len(server.bodies) == 3 * 3 - 5 and done.made.counts["yes-or-no"] == 6 and not memory.exists()


def test_half_a_line_does_not_hide_the_next_one(tmp_path: Path) -> None:
    class Once:
        name = "once"

        def write(self, kind, pathway, attempt):
            return f"{kind} {attempt}"

    place = tmp_path / "answers.jsonl"
    place.write_text('["torn')
    assert KeptWriter(Once(), place).write("yes-no", TEXT, 1) == "yes-no 1"
    again = KeptWriter(Once(), place)
    again.writer = None  # asked for nothing
    assert again.write("yes-no", TEXT, 1) == "yes-no 1"


def test_words_that_a_model_thinks_aloud_are_left_out() -> None:
    assert parse_list('<think>[maybe] [{"b": 2}]</think>[{"a": 1}]') == [{"a": 1}]
    said = {"2.": 2.0, "Mark: **1**": 1.0, "<think>0 or 1</think>\n2": 2.0, "1/2": 1.0}
    for text, mark in said.items():
        assert WriterJudge(lambda _, text=text: text, "m", rounds=1).marks("a", "b")[0] == (mark,) * 3
    for text in ("0 or 2?", "10", "1.5", "two", "I give 1 out of 2"):
        with pytest.raises(FewerError, match="gave no mark"):
            WriterJudge(lambda _, text=text: text, "m", rounds=1).marks("a", "b")
