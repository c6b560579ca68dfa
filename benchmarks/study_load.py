"""The study server under load: many raters at once on this machine's loopback, and kills in mid-submission.

Counts answers that were acknowledged and are not in the store (lost), answers that are there more than once (doubled),
and the time from a form to its receipt. Each run adds a row to the CSV, with the load of the machine, on which times
depend.

    python benchmarks/study_load.py --raters 50 --seconds 600 --kills 20
"""

from __future__ import annotations

import argparse
import csv
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from fewer.study.new import new_study
from fewer.study.settings import StudySettings
from fewer.study.store import Store

OUT = Path(__file__).parent / "results" / "study_load.csv"
HEAD = ["run", "raters", "seconds", "think", "kills", "acknowledged", "kept", "lost", "doubled", "posted_twice"]
HEAD += ["p50_ms", "p95_ms", "most_ms", "refused", "reconnects", "cores", "load"]
_HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')


class Rater(threading.Thread):
    """One rater: asks for what comes next, answers, waits; every tenth form is posted twice."""

    def __init__(self, port: int, code: str, think: float, seed: int, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.code, self.think, self.end = port, code, think, end
        self.rng = random.Random(seed)
        self.acknowledged: list[int] = []
        self.times: list[float] = []
        self.refused, self.reconnects, self.twice, self.cookie = 0, 0, 0, ""

    def run(self) -> None:
        """Until the end, or until nothing is left to answer; a server that is away is tried again."""
        while not self.end.is_set():
            try:
                self._work(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))
                return
            except (OSError, http.client.HTTPException):
                self.reconnects += 1  # the server is away, or has closed a line that was quiet for five seconds
                time.sleep(0.2)

    def _work(self, line: http.client.HTTPConnection) -> None:
        if not self.cookie:
            _, _, self.cookie = self._ask(line, "POST", "/login", {"code": self.code})
        while not self.end.is_set():
            _, text, _ = self._ask(line, "GET", "/next")
            form = dict(_HIDDEN.findall(text))
            if "item" not in form:
                return
            form |= {"choice": str(self.rng.randint(1, 5)), "seconds": "1.0"}
            for again in range(2 if self.rng.random() < 0.1 else 1):
                began = time.perf_counter()
                status, _, _ = self._ask(line, "POST", "/answer", form)
                self.times.append(time.perf_counter() - began)
                self.twice += again
                if status != 303:
                    self.refused += 1
                elif not again:
                    self.acknowledged.append(int(form["item"]))
            self.end.wait(self.think * (0.5 + self.rng.random()))

    def _ask(
        self, line: http.client.HTTPConnection, how: str, path: str, form: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        head = {"Cookie": self.cookie} if self.cookie else {}
        if form is not None:
            head["Content-Type"] = "application/x-www-form-urlencoded"
        line.request(how, path, urlencode(form) if form is not None else None, head)
        answer = line.getresponse()
        text = answer.read().decode()
        return answer.status, text, (answer.getheader("set-cookie") or "").partition(";")[0]


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that answers."""
    command = [sys.executable, "-m", "fewer", "study", "serve", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def measure(raters: int, seconds: float, think: float, kills: int) -> list[object]:
    """One run; with kills, the server is killed and started again that often, at random moments."""
    with tempfile.TemporaryDirectory() as place:
        photos, folder = Path(place) / "photos", Path(place) / "study"
        photos.mkdir()
        rng = np.random.default_rng(0)
        for i in range(400):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(photos / f"{i:03d}.png")
        chosen = {"forms": ("acr",), "raters": raters, "training": False, "pause_after": 10_000}
        new_study(folder, photos, StudySettings(**chosen, requests_per_minute=6000))
        with (folder / "codes.csv").open() as file:
            codes = [row["code"] for row in csv.DictReader(file) if row["rater"] != "owner"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server, end = start(folder, port), threading.Event()
        crowd = [Rater(port, code, think, seed, end) for seed, code in enumerate(codes[:raters])]
        for rater in crowd:
            rater.start()
            time.sleep(think / raters)
        server = _pass_time(server, folder, port, seconds, kills)
        end.set()
        for rater in crowd:
            rater.join(60)
        server.send_signal(signal.SIGINT)
        server.wait(30)
        return _row(folder, crowd, raters, seconds, think, kills)


def _pass_time(
    server: subprocess.Popen[bytes], folder: Path, port: int, seconds: float, kills: int
) -> subprocess.Popen[bytes]:
    chance = random.Random(1)
    if not kills:
        time.sleep(seconds)
    for _ in range(kills):
        time.sleep(seconds / kills * (0.5 + chance.random()))
        server.kill()
        server.wait()
        server = start(folder, port)
    return server


def _row(folder: Path, crowd: list[Rater], raters: int, seconds: float, think: float, kills: int) -> list[object]:
    kept = [row["item"] for row in Store(folder).rows("SELECT item FROM answers")]
    told = [item for rater in crowd for item in rater.acknowledged]
    times = np.array([took for rater in crowd for took in rater.times]) * 1000
    spread = [f"{value:.1f}" for value in (np.median(times), np.quantile(times, 0.95), times.max())]
    load, cores = f"{os.getloadavg()[0]:.1f}", os.cpu_count()
    counts = [len(told), len(kept), len(set(told) - set(kept)), len(kept) - len(set(kept))]
    twice, refused, lines = (sum(getattr(r, key) for r in crowd) for key in ("twice", "refused", "reconnects"))
    name = "kills" if kills else "load"
    return [name, raters, f"{seconds:g}", f"{think:g}", kills, *counts, twice, *spread, refused, lines, cores, load]


def main() -> None:
    """Both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--think", type=float, default=5.0, help="mean seconds of a rater between two answers")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    rows = [measure(given.raters, given.seconds, given.think, 0)]
    if given.kills:
        rows.append(measure(8, given.kills * 4.0, 0.1, given.kills))
    fresh = not OUT.exists()
    with OUT.open("a", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if fresh:
            table.writerow(HEAD)
        table.writerows(rows)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
