"""The bench's side of a timing process: start it, ask it, end it; and the same handle for timing in this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import fewer
from fewer.models.trust import trusted_files
from fewer.timing.runtimes import Job

__all__ = ["Handle", "InProcess", "OwnProcess", "prepare_in_process"]


class Handle:
    """A loaded competitor, wherever it runs. Failures are RuntimeErrors with one line for the table."""

    isolated = True

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """Send one request and return its answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the model."""

    def time(self, repeats: int, lead: int) -> tuple[float, float]:
        """Milliseconds per call, (wall, CPU); see `fewer.timing.schedule.Runner`."""
        answer = self.ask("time", repeats=repeats, lead=lead)
        return answer["wall_ms"], answer["cpu_ms"]

    def about(self, folder: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
        """What is known after loading, and the outputs."""
        path = folder / f"outputs-{id(self)}.npz"
        answer = self.ask("about", outputs=str(path))
        with np.load(path, allow_pickle=False) as file:
            outputs = [file[f"arr_{index}"] for index in range(len(file.files))]
        path.unlink()
        return answer, outputs

    def judge(self, inputs: str, folder: Path) -> np.ndarray:
        """Outputs for all arrays of an ``.npz`` file, each one argument of the model, flat and in order."""
        path = folder / f"judged-{id(self)}.npy"
        self.ask("judge", inputs=inputs, outputs=str(path))
        outputs = np.load(path, allow_pickle=False)
        path.unlink()
        return outputs


class OwnProcess(Handle):
    """A competitor in a process of its own, pinned to as many CPUs as it may use threads."""

    def __init__(self, job: Job, log: Path, pin: bool = True) -> None:
        header = asdict(job)
        payload = header.pop("payload") or b""
        del header["target"]
        self._pipe = _start({**header, "pin": pin}, payload, log, job.threads)
        self._log = log
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        assert self._pipe.stdin is not None
        try:
            self._pipe.stdin.write(json.dumps({"op": op, **values}).encode() + b"\n")
            self._pipe.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(_death(self._pipe, self._log)) from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        return _read(self._pipe, self._log)

    def close(self) -> None:
        _close(self._pipe)


class InProcess(Handle):
    """A competitor within this process: for models that cannot be sent to another one. Memory is not measured."""

    isolated = False

    def __init__(self, job: Job) -> None:
        from fewer.timing.worker import Session

        self._threads = job.threads
        with self._limited():
            self._session = Session(job)

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        with self._limited():
            try:
                return self._session.ask({"op": op, **values})
            except Exception as error:
                raise RuntimeError(f"{type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _limited(self):
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def prepare_in_process(what: str, arguments: dict[str, Any], log: Path, threads: int) -> dict[str, Any]:
    """Run one step of `fewer.timing.int8` in a process of its own: quantizers patch libraries and print."""
    pipe = _start({"prepare": what, "arguments": arguments}, b"", log, threads)
    try:
        return _read(pipe, log)
    finally:
        _close(pipe)


def _start(header: dict[str, Any], payload: bytes, log: Path, threads: int) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    source = str(Path(fewer.__file__).parents[1])
    paths = [source, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of compilers beside the process that is measured
    header |= {"trusted": trusted_files()}
    header |= {"payload_bytes": len(payload), "path_entries": list(dict.fromkeys([source, *sys.path]))}
    with log.open("ab") as errors:
        pipe = subprocess.Popen(
            [sys.executable, "-m", "fewer.timing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends its processes
        )
    assert pipe.stdin is not None
    try:
        pipe.stdin.write(json.dumps(header).encode() + b"\n")
        pipe.stdin.write(payload)
        pipe.stdin.flush()
    except BrokenPipeError:
        raise RuntimeError(_death(pipe, log)) from None
    except BaseException:
        _close(pipe)
        raise
    return pipe


def _read(pipe: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert pipe.stdout is not None
    line = pipe.stdout.readline()
    if not line:
        raise RuntimeError(_death(pipe, log))
    answer = json.loads(line)
    if not answer.pop("ok"):
        raise RuntimeError(answer["error"].strip().splitlines()[0][:300])
    return answer


def _death(pipe: subprocess.Popen[bytes], log: Path) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        pipe.wait(timeout=5)
    _close(pipe)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    code = pipe.returncode
    how = f"signal {-code}" if code and code < 0 else f"code {code}"
    return f"its process ended with {how}" + (f": {lines[-1].strip()[:200]}" if lines else "")


def _close(pipe: subprocess.Popen[bytes]) -> None:
    for stream in (pipe.stdin, pipe.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if pipe.poll() is None:
        # nothing of it is wanted any more; its own children (compilers) go with it
        with contextlib.suppress(OSError):
            os.killpg(pipe.pid, signal.SIGKILL)
    pipe.wait()
