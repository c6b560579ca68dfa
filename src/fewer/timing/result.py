"""What a bench found: rows, statistics derived from the samples, JSON in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.reading import parse_json, read_text
from fewer.reports.numbers import aligned
from fewer.timing.spread import Spread, paired_ratio, spread

__all__ = ["BenchResult", "Row", "write_text"]


class Row(BaseModel):
    """One competitor at one thread setting.

    Attributes
    ----------
    name, label, runtime, precision
        As in `fewer.timing.peers.Peer`; of an extra, both names are the user's.
    kind : {"peer", "extra"}
        Peers run the dense model; an extra is what the user timed beside them.
    threads : int
        Limit that was applied.
    status : {"ok", "skipped", "failed"}
        With the ``reason``.
    wall_ms, cpu_ms : list of float
        One value per round, milliseconds per call; CPU summed over threads.
    memory_bytes, load_memory_bytes : int, optional
        Peak resident memory of the competitor's own process, interpreter and runtime included: while it runs, and while
        it loads. None when it ran inside the caller's process.
    load_s : float, optional
        Seconds to load (and compile) and run once.
    relative_error : float, optional
        Norm of the difference to the dense fp32 outputs, over the norm of these; over all ``judged`` inputs.
    own_process : bool
        Whether it ran in a process of its own, with CPUs limited by the operating system.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    label: str
    runtime: str
    precision: str
    kind: Literal["peer", "extra"]
    threads: int
    status: Literal["ok", "skipped", "failed"] = "ok"
    reason: str = ""
    note: str = ""
    wall_ms: list[float] = Field(default_factory=list)
    cpu_ms: list[float] = Field(default_factory=list)
    memory_bytes: int | None = None
    load_memory_bytes: int | None = None
    load_s: float | None = None
    relative_error: float | None = None
    own_process: bool = True

    @property
    def wall(self) -> Spread:
        """Wall time in milliseconds per call."""
        return spread(self.wall_ms)

    @property
    def cpu(self) -> Spread:
        """CPU time of all threads, in milliseconds per call."""
        return spread(self.cpu_ms)


class BenchResult(BaseModel):
    """The rows of a bench with everything needed to read them.

    Examples
    --------
    >>> BenchResult.from_json(BenchResult(model="toy", input_shapes=[[1, 3]], rounds=7, rows=[]).to_json()).model
    'toy'
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    input_shapes: list[list[int]]
    rounds: int
    rows: list[Row]
    input_origin: str = ""
    judged: int = 1
    created: str = ""
    repeated: list[int] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict)

    def lines(self) -> list[str]:
        """Head line and a row of numbers for each competitor; the command line draws more of it."""
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.input_shapes)
        rows = []
        for row in self.rows:
            told = f"{row.wall.median:.3g}" if row.wall_ms else f"{row.status}: {row.reason}"
            faster, error = self.versus_eager(row), row.relative_error
            rows.append(
                [
                    row.label,
                    str(row.threads),
                    told,
                    f"{faster:.2f}x" if faster else "",
                    f"{error**2:.2g}" if error is not None else "",
                ]
            )
        head = ["", "threads", "ms", "torch / it", "distortion"]
        return [
            f"{self.model}, input {shapes}, {self.rounds} interleaved rounds",
            *(aligned(head, rows) if rows else []),
        ]

    def __repr__(self) -> str:
        return Told.__repr__(self)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return Told._repr_html_(self)  # type: ignore[arg-type]

    @property
    def threads(self) -> list[int]:
        """The thread settings, in order."""
        return list(dict.fromkeys(row.threads for row in self.rows))

    def row(self, name: str, threads: int | None = None) -> Row:
        """The row of one competitor; by default at the first thread setting."""
        threads = self.threads[0] if threads is None else threads
        for row in self.rows:
            if row.name == name and row.threads == threads:
                return row
        raise FewerError(f"the bench has no row {name!r} at {threads} threads")

    def versus_eager(self, row: Row, cpu: bool = False) -> float | None:
        """How many times faster than torch eager fp32 at the same threads (paired rounds; wall time, or CPU time)."""
        return self._ratio(self._timed(row.threads, lambda r: r.name == "torch-fp32"), row, cpu)

    def best_dense(self, row: Row) -> Row | None:
        """The quickest peer of the row's precision and threads."""
        rivals = self._timed(row.threads, lambda r: r.kind == "peer" and r.precision == row.precision)
        return min(rivals, key=lambda r: r.wall.median, default=None)

    def versus_best(self, row: Row, cpu: bool = False) -> float | None:
        """How many times faster than `best_dense` (1 for that peer itself)."""
        best = self.best_dense(row)
        return self._ratio([best] if best else [], row, cpu)

    def _timed(self, threads: int, wanted: Any) -> list[Row]:
        return [r for r in self.rows if r.threads == threads and r.status == "ok" and r.wall_ms and wanted(r)]

    @staticmethod
    def _ratio(references: list[Row], row: Row, cpu: bool) -> float | None:
        if not references or row.status != "ok" or not row.wall_ms:
            return None
        if not cpu:
            return paired_ratio(references[0].wall_ms, row.wall_ms)
        return paired_ratio(references[0].cpu_ms, row.cpu_ms) if min(row.cpu_ms) > 0 else None

    def noisy_rows(self, threads: int | None = None) -> list[Row]:
        """Rows whose spread is too wide."""
        rows = [row for row in self.rows if row.status == "ok" and row.wall_ms and row.wall.noisy]
        return [row for row in rows if threads is None or row.threads == threads]

    def noisy_against_eager(self, row: Row) -> bool:
        """Whether a row or the reference of its thread setting is noisy, so that their ratio is only rough."""
        return any(r.name in (row.name, "torch-fp32") for r in self.noisy_rows(row.threads))

    def table_rows(self) -> list[dict[str, Any]]:
        """The table as plain values, one dict per row; times in ms, memory in bytes, absent numbers None."""
        return [self._table_row(row) for row in self.rows]

    def _table_row(self, row: Row) -> dict[str, Any]:
        timed = row.status == "ok" and bool(row.wall_ms)
        best = self.best_dense(row)
        return {
            "name": row.name,
            "kind": row.kind,
            "precision": row.precision,
            "threads": row.threads,
            "status": row.status,
            "reason": row.reason,
            "median_ms": row.wall.median if timed else None,
            "best_ms": row.wall.best if timed else None,
            "iqr_ms": row.wall.high - row.wall.low if timed else None,
            "cpu_ms": row.cpu.median if timed else None,
            "noisy": row.wall.noisy if timed else None,
            "versus_eager": self.versus_eager(row),
            "versus_best": self.versus_best(row),
            "versus_eager_cpu": self.versus_eager(row, cpu=True),
            "versus_best_cpu": self.versus_best(row, cpu=True),
            "best_dense": best.name if best else None,
            "memory_bytes": row.memory_bytes,
            "load_memory_bytes": row.load_memory_bytes,
            "load_s": row.load_s,
            "relative_error": row.relative_error,
            "note": row.note,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON: the samples under ``rows``, the derived numbers under ``table``; also into a file if asked."""
        data = self.model_dump() | {"table": self.table_rows()}
        text = json.dumps(data, indent=2, allow_nan=False)
        if path is not None:
            write_text(Path(path), text + "\n")
        return text

    @classmethod
    def from_json(cls, text: str | Path) -> BenchResult:
        """Read what `to_json` wrote: the text, or the file's path; the derived numbers are computed again.

        Raises
        ------
        FewerError
            When it is not the JSON of a bench.
        """
        where = "the text"
        if isinstance(text, Path):
            where, text = str(text), read_text(text)
        try:
            data = parse_json(text, where)
        except FewerError as error:
            raise FewerError(f"{where} is not the result of a bench ({error}); write one with `fewer bench`") from None
        try:
            if not isinstance(data, dict):
                raise ValueError("no JSON object")
            data.pop("table", None)
            return cls.model_validate(data)
        except ValueError as error:
            line = str(error).splitlines()[0]
            raise FewerError(f"{where} is not the result of a bench ({line}); write one with `fewer bench`") from None


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where that is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, path.parent, "make") from None
    atomic_write_text(path, text)
