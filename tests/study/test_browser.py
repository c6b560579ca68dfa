"""A rater in a real headless Chromium: every form by the keyboard, a draft that outlives a crash, a phone."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.study.export import pathways_of
from fewer.study.new import new_study
from fewer.study.settings import StudySettings
from fewer.study.store import Store
from tests.support.browser import open_browser, where_chromium

pytest.importorskip("fastapi", reason="the study server needs the extra fewer[study]")
pytest.importorskip("uvicorn", reason="the study server needs the extra fewer[study]")
pytestmark = pytest.mark.skipif(where_chromium() is None, reason="no Chromium is installed")

WIDE = 900


class Server:
    """``fewer study serve`` in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "fewer", "study", "serve", str(self.folder), f"--port={self.port}"]
        self.running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.address, timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < end and self.running.poll() is None, "the server does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.wait(30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (60, WIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    forms = ("pathway", "acr", "pair", "yes-no")
    new_study(tmp_path / "study", tmp_path / "photos", StudySettings(raters=2, forms=forms, per_rater=1, repeats=0.0))
    made = Server(tmp_path / "study")
    yield made
    made.kill()


def test_a_rater_with_a_keyboard_and_a_phone(server: Server, tmp_path: Path) -> None:
    with (server.folder / "codes.csv").open() as file:
        code = next(row["code"] for row in csv.DictReader(file) if row["rater"] != "owner")
    with open_browser(tmp_path / "profile") as page:
        page.go(server.address)
        page.type(code)  # the field has the focus
        page.ask("window.old = true")
        page.key("Enter")
        page.wait("!window.old && document.readyState == 'complete'")
        for level in ("5", "3", "2", "3", "2", "1"):
            assert "Training" in page.ask("document.body.innerText")
            page.key(level)
            page.send()
        seen = set()
        for _ in range(4):
            assert page.ask("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
            if page.ask("!!document.querySelector('textarea')"):
                seen.add("pathway")
                _write(page, server)
            elif page.ask("!!document.querySelector('.pair')"):
                seen.add("pair")
                page.key("ArrowLeft")
                page.send()
            elif page.ask("!!document.querySelector('input[value=yes]')"):
                seen.add("yes-no")
                page.key("y")
                page.send()
            else:
                seen.add("acr")
                _on_a_phone(page)
                page.key("4")
                page.send()
        assert seen == {"pathway", "acr", "pair", "yes-no"} and not page.errors
        page.go(f"{server.address}/mine")
        # what looks like HTML in a feedback is text
        assert page.ask("document.querySelector('#planted') === null && document.body.innerText.includes('planted')")
    server.kill()
    store = Store(server.folder)
    assert [text.description for text in pathways_of(store)] == [TEXT]
    store.close()


TEXT = "The lamp in the upper left is <b id=planted>blurry</b> and noisy."


def _write(page, server: Server) -> None:
    """A text; in the midst of it the page is loaded again, and the server is killed before it is sent."""
    page.type(TEXT)
    page.go(f"{server.address}/next")
    assert page.ask("document.querySelector('#description').value") == TEXT
    page.ask("document.querySelector('#conclusion').focus()")
    page.type("Overall, the quality is poor.")
    server.kill()
    server.start()
    page.send()
    assert page.ask("document.querySelector('#description') === null")


def _on_a_phone(page) -> None:
    """The page fits, and the image keeps its own pixels: it is moved with a finger and never shrunk."""
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    assert page.ask("document.documentElement.scrollWidth <= 390")
    assert page.ask("document.images[0].getBoundingClientRect().width") == WIDE
    assert page.ask(
        "[...document.querySelectorAll('button, label')].every((e) => e.getBoundingClientRect().right <= 390)"
    )
    page.call("Emulation.clearDeviceMetricsOverride")
