"""The queue folder: all state of a selection. No server: it can be copied, mailed and gone on with anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.folder import MarkedFolder
from fewer.core.reading import parse_json, read_text
from fewer.core.staging import Staging
from fewer.core.toml import dump_toml, read_toml
from fewer.selection.plan import QueuePlan, in_pool

__all__ = ["QueueFolder"]

_WARM_UP = "warm-up"
_ROUND = "round.json"


class QueueFolder(MarkedFolder):
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

    MARK, MAKER, FOLDERS = ".fewer-queue", "fewer select", frozenset(["annotate", _WARM_UP])

    def is_part(self, name: str) -> bool:
        """By its ending: exports have names of their own."""
        return Path(name).suffix in (".toml", ".jsonl", ".f32", ".json", ".xml", ".csv", ".html", ".tmp")

    def may_go(self) -> bool:
        """A first round that has embedded nothing yet."""
        embedded = any(p.stat().st_size for p in self.path.glob("*.f32.jsonl")) or (self.path / _WARM_UP).exists()
        return not self.has_plan() and not embedded

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
            Choose an existing queue anew; the old one stays whole until the new one is written. With ``resume``: go on
            with what was interrupted, and start anew where nothing was.

        Raises
        ------
        FewerError
            When the folder holds something else, holds a queue and none of these is asked for, holds none and
            ``proceed`` is, or another process is writing to it.
        """
        queue = cls(path)
        folder = queue.home
        if proceed and overwrite:
            raise FewerError("a queue is continued or chosen anew; give one of --continue and --overwrite")
        if proceed and not (folder / "plan.json").exists():
            raise FewerError(f"{folder} holds no queue to continue; choose its first round without --continue")
        queue.look()
        queue.hold()
        with queue.taking_over():
            queue.settle()
            again = resume and not proceed and Staging(folder).exists()
            if queue.has_plan() and not (proceed or overwrite or again):
                if resume:
                    raise FewerError(
                        f"the queue in {folder} is finished; for a further round give --continue without --resume"
                    )
                raise FewerError(
                    f"{folder} already holds a queue; give --continue for a further round, --overwrite to start anew"
                )
            if queue.content() and not (proceed or resume or overwrite):
                raise FewerError(
                    f"{folder} holds an interrupted queue; give --resume to go on, --overwrite to start anew"
                )
            interrupted = again or not queue.has_plan()
            queue.begin(overwrite=overwrite, resume=resume and not proceed, interrupted=interrupted)
        return queue

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
        except (OSError, ValueError, RecursionError):
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
            names = [parse_json(line, str(path)) for line in read_text(path, 2**30).split("\n") if line]
            return [in_pool(name) for name in names]
        except (FewerError, TypeError, ValueError):
            raise FewerError(f"{path} is damaged; choose the queue anew with --overwrite") from None
