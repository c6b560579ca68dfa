"""The run folder: everything that one run made, whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.files import append_line, atomic_write_bytes, atomic_write_text, refuse_inputs
from fewer.core.folder import MarkedFolder
from fewer.core.lock import LOCK
from fewer.core.plan import Plan
from fewer.core.reading import parse_json, read_bytes, read_json, read_text
from fewer.core.staging import Staging
from fewer.core.toml import dump_toml, read_toml

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RunFolder"]

_SCRATCH = ".scratch"  # finished tasks of a run that is under way
_FILES = {
    "config": "config.toml",
    "plan": "plan.json",
    "curves": "curves.npz",
    "model": "model.safetensors",
    "recipe": "recipe.json",
    "runtime": "runtime.json",
    "runtime_model": "runtime.onnx",
    "report_html": "report.html",
    "report_json": "report.json",
    "log": "log.jsonl",
}
_HISTORY = re.compile(r"history(-[\w.-]+)?\.csv")  # tables of trainings, one for each


class RunFolder(MarkedFolder):
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

    MARK, MAKER, FOLDERS = ".fewer-run", "fewer", frozenset([_SCRATCH])

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._fresh = False  # whether create() found nothing here

    def is_part(self, name: str) -> bool:
        """One of the files of a run."""
        return name in _FILES.values() or _HISTORY.fullmatch(name) is not None

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False, resume: bool = False) -> RunFolder:
        """Make the folder and lock it, or take an existing one over.

        Parameters
        ----------
        path
            The folder; parents are made.
        overwrite
            Make an existing run anew. The old one stays whole until the new one is finished; files of others stay.
        resume
            Go on in an existing run folder, keeping its files. A folder that does not exist yet is made. With
            ``overwrite``: go on with what was interrupted, and start anew where nothing was.

        Raises
        ------
        FewerError
            When the folder is not empty and neither is asked for, when it is not a run folder, when another process
            is writing to it, when it holds links, or when it cannot be made.
        """
        run = cls(path)
        names = run.look()
        if names - {run.MARK} and not overwrite and not resume:
            raise FewerError(
                f"{run.home} already holds a run; give --resume to go on with it, --overwrite to start anew"
            )
        run.hold()
        with run.taking_over():
            run.settle()
            interrupted = Staging(run.home).exists() or (run.home / _SCRATCH).exists()
            run._fresh = not names or (overwrite and not (resume and interrupted))
            run.begin(overwrite=overwrite, resume=resume, interrupted=interrupted)
            run._tidy()
        return run

    @classmethod
    def edit(cls, path: str | Path) -> RunFolder:
        """Take over a run that is there, to change some of its files; see :meth:`together`.

        Raises
        ------
        FewerError
            As :meth:`open` and :meth:`create`.
        """
        run = cls.open(path)
        run.hold()
        with run.taking_over():
            run.settle()
            run._tidy()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run for reading; no lock is taken.

        Raises
        ------
        FewerError
            When the folder does not exist or is not a run.
        """
        run = super().open(path)
        if not (run.home / cls.MARK).exists() and not any((run.home / f).exists() for f in _FILES.values()):
            raise FewerError(f"{run.home} is not a run of fewer: it has no {_FILES['plan']} and no {_FILES['curves']}")
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.begun != self.home:
            self.clear_scratch()
        kept = isinstance(error, FewerError) and self._fresh and not self.may_go()
        super().__exit__(kind, error, trace)
        if kept and "--resume" not in str(error):
            raise FewerError(f"{error}; what was done so far is kept in {self.home}: go on with --resume") from error

    def may_go(self) -> bool:
        """A run that found nothing here, has sensed nothing yet, and shares its folder with no file of others."""
        passing = {self.begun / name for name in (self.MARK, LOCK, _FILES["config"], _FILES["log"])}
        passing.add(self.begun / _SCRATCH / "runtime.json")  # which runtime is the fastest is soon found again
        files = [p for p in self.begun.rglob("*") if p.is_file() and p not in passing]
        return self._fresh and not any(p.stat().st_size for p in files)

    def scratch(self) -> Path:
        """The folder of unfinished work, which a resume goes on from; it is made where it is not there."""
        folder = self.begun / _SCRATCH
        folder.mkdir(exist_ok=True)
        return folder

    def clear_scratch(self) -> None:
        """Throw unfinished work away: the run is finished."""
        shutil.rmtree(self.begun / _SCRATCH, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Path of one of the run's files: ``config plan curves model recipe report_html report_json log``."""
        return self.path / _FILES[name]

    def refuse(self, path: Path) -> None:
        """Raise a :class:`FewerError` if a file that is to be written is one that this run is made of."""
        refuse_inputs([path], [self.home / name for name in (*_FILES.values(), self.MARK) if name != _FILES["plan"]])

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
        """Read one of the run's JSON files; see :func:`fewer.core.reading.parse_json`."""
        return read_json(self.file(name))

    def read_text(self, name: str) -> str:
        """Read one of the run's text files; see :func:`fewer.core.reading.read_text`."""
        return read_text(self.file(name))

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
        append_line(self.begun / _FILES["log"], line.encode("utf-8", "backslashreplace"))

    def read_log(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of ``log.jsonl``; a last line that a crash cut off is left out."""
        if not self.has("log"):
            return
        for line in read_bytes(self.file("log")).decode("utf-8", "replace").split("\n"):
            with contextlib.suppress(FewerError):
                entry = parse_json(line, "the log")
                if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                    yield entry

    def _tidy(self) -> None:
        """Remove what a killed process left: temporary files, and the half of a log line."""
        for name in (*_FILES.values(), "history*.csv", self.MARK):
            for left in self.begun.glob(f".{name}.*.tmp"):
                left.unlink(missing_ok=True)
        log = self.begun / _FILES["log"]
        if log.exists() and (text := read_bytes(log)) and not text.endswith(b"\n"):
            atomic_write_bytes(log, text[: text.rfind(b"\n") + 1])
