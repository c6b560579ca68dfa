"""The run folder: everything that one run made, whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text, explain_os_error
from fewer.core.folder import open_marked
from fewer.core.lock import LOCK, FolderLock
from fewer.core.plan import Plan
from fewer.core.toml import dump_toml, read_toml

__all__ = ["RunFolder"]

_MARK = ".fewer-run"
_QUEUE_MARK = ".fewer-queue"
_SCRATCH = ".scratch"  # finished tasks of a run that is under way
_FILES = {
    "config": "config.toml",
    "plan": "plan.json",
    "curves": "curves.npz",
    "model": "model.safetensors",
    "recipe": "recipe.json",
    "report_html": "report.html",
    "report_json": "report.json",
    "log": "log.jsonl",
}


class RunFolder:
    """A folder that holds one run: configuration, curves, plan, model, report and log.

    Files are written to a temporary name and renamed, so that an interrupted run leaves whole files only. Make one
    with :meth:`create` (for writing; it takes a lock) or :meth:`open` (for reading).

    Examples
    --------
    >>> import tempfile
    >>> with RunFolder.create(Path(tempfile.mkdtemp()) / "run") as run:
    ...     _ = run.write_config({"model": "fewer/vit", "seed": 0})
    ...     run.log("sensed", units=12)
    ...     run.read_config()["seed"], [line["event"] for line in run.read_log()]
    (0, ['sensed'])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FolderLock(self.path)
        self._fresh = False  # whether create() found nothing here
        self._made: list[Path] = []  # folders that create() made, the innermost first

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False, resume: bool = False) -> RunFolder:
        """Make the folder and lock it, or take an existing one over.

        Parameters
        ----------
        path
            The folder; parents are made.
        overwrite
            Empty an existing run folder of what runs write. Other files in it are left alone.
        resume
            Go on in an existing run folder, keeping its files. A folder that does not exist yet is made.

        Raises
        ------
        FewerError
            When the folder is not empty and neither is asked for, when it is not a run folder, when another process
            is writing to it, or when it cannot be made.
        """
        if overwrite and resume:
            raise FewerError("a run cannot be overwritten and resumed at once; give one of --overwrite and --resume")
        run = cls(path)
        folder = run.path
        names, made = open_marked(folder, _MARK, "fewer")
        if names - {_MARK, LOCK} and not overwrite and not resume:
            raise FewerError(f"{folder} already holds a run; give --resume to go on with it, --overwrite to start anew")
        run._lock.take()
        run._fresh, run._made = not names, made
        try:
            run._tidy()
            if overwrite:
                for name in _FILES.values():
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
            if _MARK not in names:
                atomic_write_text(folder / _MARK, "This folder was made by fewer.\n")
        except (OSError, FewerError) as error:
            run.close()
            raise explain_os_error(error, folder) if isinstance(error, OSError) else error from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run for reading; no lock is taken.

        Raises
        ------
        FewerError
            When the folder does not exist or is not a run.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise FewerError(f"the run folder {run.path} does not exist")
        if (run.path / _QUEUE_MARK).exists():
            raise FewerError(f"{run.path} is a queue of fewer select, not a run of fewer")
        if not (run.path / _MARK).exists() and not any((run.path / f).exists() for f in _FILES.values()):
            raise FewerError(f"{run.path} is not a run of fewer: it has no {_FILES['plan']} and no {_FILES['curves']}")
        return run

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = False
        if isinstance(error, FewerError) and self._fresh:
            kept = not self._unmake()
        self.close()
        if kept and "--resume" not in str(error):
            raise FewerError(f"{error}; what was done so far is kept in {self.path}: go on with --resume") from error

    def _unmake(self) -> bool:
        """Leave nothing behind when a mistake ended the run before there was anything to keep; False where there was.

        So the same command works once its input is right. Sensed results and files of others stay.
        """
        files = [p for p in self.path.rglob("*") if p.is_file()]
        passing = {self.path / name for name in (_MARK, LOCK, _FILES["config"], _FILES["log"])}
        passing.add(self.path / _SCRATCH / "runtime.json")  # which runtime was the fastest is soon found again
        if any(p not in passing and p.stat().st_size for p in files):
            return False
        with contextlib.suppress(OSError):  # a folder that someone else began to use stays
            for path in files:
                path.unlink()
            for place in [*sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True), *self._made]:
                place.rmdir()
        return True

    def close(self) -> None:
        """Let the lock go. Calling it again does nothing."""
        self._lock.release()

    def file(self, name: str) -> Path:
        """Path of one of the run's files: ``config plan curves model recipe report_html report_json log``."""
        return self.path / _FILES[name]

    def has(self, name: str) -> bool:
        """Whether the run already has a file."""
        return self.file(name).exists()

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write one of the run's files in one step."""
        return atomic_write_bytes(self.file(name), data)

    def write_text(self, name: str, text: str) -> Path:
        """Write one of the run's files as UTF-8 text in one step."""
        return atomic_write_text(self.file(name), text)

    def write_json(self, name: str, value: Any) -> Path:
        """Write one of the run's files as JSON in one step; NaN is refused, as it is not JSON."""
        try:
            text = json.dumps(value, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FewerError(f"{_FILES[name]} cannot be written as JSON: {error}") from None
        return self.write_text(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """Read one of the run's JSON files."""
        path = self.file(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise explain_os_error(error, path, "read") from error
        except ValueError as error:
            raise FewerError(f"{path} is not valid JSON: {error}") from None

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Write ``config.toml``."""
        return self.write_text("config", dump_toml(config))

    def read_config(self) -> dict[str, Any]:
        """Read ``config.toml``."""
        return read_toml(self.file("config"))

    def write_plan(self, plan: Plan) -> Path:
        """Write ``plan.json``."""
        return plan.save(self.file("plan"))

    def read_plan(self) -> Plan:
        """Read ``plan.json``."""
        return Plan.load(self.file("plan"))

    def write_curves(self, curves: CurveSet) -> Path:
        """Write ``curves.npz``."""
        return curves.save(self.file("curves"))

    def read_curves(self) -> CurveSet:
        """Read ``curves.npz``.

        Raises
        ------
        FewerError
            When the run has none: it is still being sensed, or it is of another kind.
        """
        if not self.has("curves"):
            raise FewerError(f"{self.path} has no curves; they come from fewer compress or fewer sense")
        return CurveSet.load(self.file("curves"))

    def log(self, event: str, **facts: Any) -> None:
        """Append one line to ``log.jsonl``: the time (seconds since 1970), the event and its facts."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, default=str) + "\n"
        path = self.file("log")
        try:
            # one write of one line in append mode: lines of several threads do not mix
            with path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise explain_os_error(error, path) from error

    def read_log(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of ``log.jsonl``; a last line that a crash cut off is left out."""
        if not self.has("log"):
            return
        for line in self.file("log").read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def _tidy(self) -> None:
        """Remove what a killed process left: temporary files, and the half of a log line."""
        for name in _FILES.values():
            for left in self.path.glob(f".{name}.*.tmp"):
                left.unlink(missing_ok=True)
        log = self.file("log")
        if log.exists() and (text := log.read_bytes()) and not text.endswith(b"\n"):
            atomic_write_bytes(log, text[: text.rfind(b"\n") + 1])
