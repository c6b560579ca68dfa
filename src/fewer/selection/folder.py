"""The queue folder: all state of a selection. No server: it can be copied, mailed and gone on with anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.folder import open_marked
from fewer.core.lock import LOCK, FolderLock
from fewer.core.toml import dump_toml, read_toml
from fewer.selection.plan import QueuePlan

__all__ = ["QueueFolder"]

_MARK = ".fewer-queue"
_WARM_UP = "warm-up"
_ROUND = "round.json"
_FOLDERS = ("annotate", _WARM_UP)


class QueueFolder:
    """A folder with one queue: ``config.toml images.jsonl vectors.f32 plan.json queue.csv gallery.html``, exports, and
    ``warm-up`` with the network, where one was warmed up for the features.

    Make one with :meth:`create`, which takes the folder's lock, as a context manager.

    Examples
    --------
    >>> import tempfile
    >>> with QueueFolder.create(Path(tempfile.mkdtemp()) / "queue") as queue:
    ...     queue.write_names(["b.png", "a.png"])
    ...     queue.read_names(), queue.has_plan()
    (['b.png', 'a.png'], False)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FolderLock(self.path)
        self._made: list[Path] = []

    @classmethod
    def create(
        cls, path: str | Path, *, proceed: bool = False, resume: bool = False, overwrite: bool = False
    ) -> QueueFolder:
        """Make the folder and lock it, or take an existing one over.

        Parameters
        ----------
        path
            The folder; parents are made.
        proceed
            Go on with a further round: the folder must hold a queue.
        resume
            Go on with an interrupted round.
        overwrite
            Throw an existing queue away.

        Raises
        ------
        FewerError
            When the folder holds something else, holds a queue and none of these is asked for, holds none and
            ``proceed`` is, or another process is writing to it.
        """
        queue = cls(path)
        folder = queue.path
        if proceed and not (folder / "plan.json").exists():
            raise FewerError(f"{folder} holds no queue to continue; choose its first round without --continue")
        names, made = open_marked(folder, _MARK, "fewer select")
        queue._lock.take()
        queue._made = made
        try:
            if "plan.json" in names and not (proceed or overwrite):
                raise FewerError(
                    f"{folder} already holds a queue; give --continue for a further round, --overwrite to start anew"
                )
            if names - {_MARK, LOCK} and not (proceed or resume or overwrite):
                raise FewerError(
                    f"{folder} holds an interrupted queue; give --resume to go on, --overwrite to start anew"
                )
            if overwrite:
                queue._empty()
            atomic_write_text(folder / _MARK, "This folder was made by fewer select.\n")
        except (OSError, FewerError) as error:
            queue._lock.release()
            raise explain_os_error(error, folder) if isinstance(error, OSError) else error from error
        return queue

    def __enter__(self) -> QueueFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, FewerError) and not self.has_plan():
            self._unmake()
        self._lock.release()

    def _unmake(self) -> None:
        """Leave nothing behind when a mistake ended the first round before anything was embedded."""
        if any(p.stat().st_size for p in self.path.glob("*.f32.jsonl")) or (self.path / _WARM_UP).exists():
            return
        with contextlib.suppress(OSError):  # a folder that someone else began to use stays
            self._empty()
            for name in (_MARK, LOCK):
                (self.path / name).unlink(missing_ok=True)
            for place in self._made:
                place.rmdir()

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.name in (LOCK, _MARK):
                continue
            if path.is_dir() and not path.is_symlink():
                if path.name in _FOLDERS:  # another one is not ours
                    shutil.rmtree(path, ignore_errors=True)
            elif path.suffix in (".toml", ".jsonl", ".f32", ".json", ".xml", ".csv", ".html", ".tmp"):
                path.unlink()

    def begin_round(self, *, resume: bool) -> None:
        """Note which round is being chosen, so that one that is finished is not run again.

        Raises
        ------
        FewerError
            When a round is to be resumed that is finished.
        """
        done = len(self.read_plan().rounds) if self.has_plan() else 0
        note = self.path / _ROUND
        if resume and done and self._noted() != done + 1:
            raise FewerError(
                f"round {done} of {self.path} is finished; for a further one give --continue without --resume"
            )
        atomic_write_text(note, json.dumps({"round": done + 1}) + "\n")

    def end_round(self) -> None:
        """Note that no round is open."""
        (self.path / _ROUND).unlink(missing_ok=True)

    def _noted(self) -> int | None:
        try:
            value = json.loads((self.path / _ROUND).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return value.get("round") if isinstance(value, dict) else None

    def has_plan(self) -> bool:
        """Whether a round was finished."""
        return (self.path / "plan.json").exists()

    def read_plan(self) -> QueuePlan:
        """Read ``plan.json``."""
        return QueuePlan.load(self.path / "plan.json")

    def write_config(self, config: dict[str, Any]) -> None:
        """Write ``config.toml``."""
        atomic_write_text(self.path / "config.toml", dump_toml(config))

    def read_config(self) -> dict[str, Any]:
        """Read ``config.toml``; empty where there is none."""
        path = self.path / "config.toml"
        return read_toml(path) if path.exists() else {}

    def write_names(self, names: list[str]) -> None:
        """Write the file of every row."""
        atomic_write_text(self.path / "images.jsonl", "".join(json.dumps(name) + "\n" for name in names))

    def read_names(self) -> list[str]:
        """The file of every row, in the order in which they were first seen; empty where there is no list yet.

        Raises
        ------
        FewerError
            When the list is damaged.
        """
        path = self.path / "images.jsonl"
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        except ValueError:
            raise FewerError(f"{path} is damaged; choose the queue anew with --overwrite") from None
