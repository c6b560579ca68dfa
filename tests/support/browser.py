"""A real headless Chromium, driven by its own protocol over a plain socket: no package and no network is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Browser", "open_browser", "where_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0  # for one answer, on a machine that is busy with other work


def where_chromium() -> str | None:
    """The program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class _Socket:
    """A WebSocket, as far as the protocol of the browser needs one: texts in both directions."""

    def __init__(self, port: int, path: str) -> None:
        self._wire = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._wire.sendall("\r\n".join(lines).encode())
        self._file = self._wire.makefile("rb")
        assert b" 101 " in self._file.readline()
        while self._file.readline().strip():
            pass

    def send(self, text: str) -> None:
        """One text."""
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = bytes([0x81, 0x80 | (size if size < 126 else 126 if size < 2**16 else 127)])
        head += b"" if size < 126 else size.to_bytes(2 if size < 2**16 else 8, "big")
        self._wire.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def receive(self) -> str:
        """The next text."""
        whole = b""
        while True:
            first, second = self._file.read(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            data = self._file.read(size)
            if first & 0x0F in (0, 1):
                whole += data
                if first & 0x80:
                    return whole.decode()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._wire.close()


class Browser:
    """One page.

    Attributes
    ----------
    errors
        Texts of exceptions of the page's scripts.
    """

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
            pages = [page for page in json.load(answer) if page["type"] == "page"]
        self._socket = _Socket(port, pages[0]["webSocketDebuggerUrl"].split(str(port), 1)[1])
        self._number, self.errors = 0, []
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": values}))
        while True:
            told = json.loads(self._socket.receive())
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(told["params"]["exceptionDetails"]["text"])
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # the page is being changed for another one
                if self.ask(script):
                    return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page says {self.ask('document.body.innerText')!r}")

    def go(self, address: str) -> None:
        """Open an address."""
        self.ask("window.old = true")
        self.call("Page.navigate", url=address)
        self.wait("!window.old && document.readyState == 'complete'")

    def key(self, key: str, control: bool = False) -> None:
        """Press and release a key; with ``control``, together with that key."""
        values: dict[str, Any] = {"key": key, "code": key, "modifiers": 2 if control else 0}
        values |= {"windowsVirtualKeyCode": 13, "text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def send(self) -> None:
        """Send the form by the keyboard, and wait for the next page."""
        self.ask("window.old = true")
        self.key("Enter", control=True)
        self.wait("!window.old && document.readyState == 'complete'")

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in a folder of its own; it ends with the block."""
    words = [str(where_chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    words += ["--no-first-run", "--disable-background-networking", "--remote-debugging-port=0"]
    words += [f"--user-data-dir={folder}", "about:blank"]
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = folder / "DevToolsActivePort"
        end = time.monotonic() + SECONDS
        while not (told.is_file() and told.read_text().strip()):
            assert time.monotonic() < end and running.poll() is None, "the browser does not start"
            time.sleep(0.05)
        browser = Browser(int(told.read_text().split()[0]))
        try:
            yield browser
        finally:
            browser.close()
    finally:
        running.terminate()
        running.wait(SECONDS)
