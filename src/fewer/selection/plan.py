"""The plan of a label budget: a queue of images that a person can read, and what is known of the labels so far."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.plan import first_mistake
from fewer.core.reading import parse_json, read_text

__all__ = ["Asked", "QueuePlan", "Round", "Skipped", "in_pool"]

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def in_pool(name: str) -> str:
    """The name of an image, or a ``ValueError`` where it leads out of the pool's folder.

    A queue may come from someone else, and names of it become paths that are read, and copies that are written.

    Examples
    --------
    >>> in_pool("b/0423.png")
    'b/0423.png'
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name[:60]!r} is no name of an image in the pool's folder")
    return name


InPool = Annotated[str, AfterValidator(in_pool)]


class Asked(BaseModel):
    """One image that should be labelled, and why."""

    model_config = _STRICT

    round: int
    rank: int
    name: InPool
    group: int = -1
    stands_for: float = 0.0
    score: float = 0.0
    why: str


class Round(BaseModel):
    """One round of choosing."""

    model_config = _STRICT

    round: int
    method: str
    budget: str
    seed: int
    chosen: int
    pool: int
    seconds: float


class Skipped(BaseModel):
    """One image that could not be read."""

    model_config = _STRICT

    name: str
    reason: str


class QueuePlan(BaseModel):
    """What to label, in which order.

    Parameters
    ----------
    schema_version
        1.
    pool
        Folder of the images.
    features
        Model (or file) that the vectors come from.
    images
        Images in the pool, unreadable ones included.
    skipped
        Unreadable images.
    rounds
        One entry per round.
    queue
        Images to label, of all rounds, in the order in which they were chosen.
    labelled
        Name of every image whose label was given back, with its class where it has one.

    Examples
    --------
    >>> plan = QueuePlan(pool="pool", features="fewer/dinov2-small", images=2, rounds=[], queue=[])
    >>> QueuePlan.from_json(plan.to_json()) == plan
    True
    """

    model_config = _STRICT

    schema_version: Literal[1] = 1
    pool: str
    features: str
    images: int
    skipped: list[Skipped] = []
    rounds: list[Round]
    queue: list[Asked]
    labelled: dict[InPool, str | None] = {}

    def waiting(self) -> list[Asked]:
        """Images of the queue that have no label yet."""
        return [asked for asked in self.queue if asked.name not in self.labelled]

    def to_json(self) -> str:
        """JSON text with one image per line, so that two plans can be compared line by line."""
        head = self.model_dump(exclude={"queue"})
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        queue = ",\n".join(f"    {json.dumps(asked.model_dump(), ensure_ascii=False)}" for asked in self.queue)
        lines.append('  "queue": [\n' + queue + "\n  ]" if queue else '  "queue": []')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def to_csv(self) -> str:
        """The queue as a table: ``round rank name status stands_for group score why``."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["round", "rank", "name", "status", "stands_for", "group", "score", "why"])
        for asked in self.queue:
            status = "labelled" if asked.name in self.labelled else "waiting"
            numbers = [f"{asked.stands_for:g}", asked.group, f"{asked.score:.6g}"]
            table.writerow([asked.round, asked.rank, asked.name, status, *numbers, asked.why])
        return text.getvalue()

    @classmethod
    def from_json(cls, text: str, where: str = "the plan") -> QueuePlan:
        """Read JSON text, and say what is wrong with it if anything is."""
        values = parse_json(text, where, finite=True)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise FewerError(f"{where}: {first_mistake(error, cls)}") from None

    def save(self, folder: Path) -> None:
        """Write ``plan.json`` and ``queue.csv``, each in one step."""
        atomic_write_text(folder / "queue.csv", self.to_csv())
        atomic_write_text(folder / "plan.json", self.to_json())

    @classmethod
    def load(cls, path: Path) -> QueuePlan:
        """Read from a file."""
        plan = cls.from_json(read_text(path, 2**30, "queue"), str(path))
        if len({asked.name for asked in plan.queue}) != len(plan.queue):
            raise FewerError(f"{path} holds an image twice, which no queue of fewer does; restore it from a backup")
        return plan
