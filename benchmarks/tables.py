"""The tables that benchmarks write, and how an interrupted one goes on.

:class:`Table` appends a row at a time; its key columns say which rows are done. :func:`read` and :func:`write` are for
a table that is written anew after every row, with the environment in its first line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fewer.core.stamp import environment

__all__ = ["Table", "read", "write"]


class Table:
    """Rows in a CSV file, appended as they come; the first ``keys`` columns name a row."""

    def __init__(self, path: Path, columns: Sequence[str], keys: int, fresh: bool = False) -> None:
        self.path, self.columns, self.keys = path, tuple(columns), keys
        if fresh or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(columns) + "\n", "utf-8")
        with path.open(encoding="utf-8", newline="") as file:
            self.done = {self.key(row) for row in csv.DictReader(file)}

    def key(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[c]) for c in self.columns[: self.keys])

    def __contains__(self, row: dict[str, Any]) -> bool:
        return self.key(row) in self.done

    def add(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        self.done.add(self.key(row))
        print(*(row.get(c, "") for c in self.columns), flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a table; none where there is no file. Lines that start with # are passed over."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """All rows, under a comment line with the environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {json.dumps(environment(torch.get_num_threads()))}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
