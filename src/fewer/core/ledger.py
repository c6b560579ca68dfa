"""A list of finished tasks on disk, so that interrupted work goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import append_line, atomic_write_bytes
from fewer.core.reading import parse_json, read_bytes


class Ledger:
    """Finished tasks, one JSON line each, under a key that names the work.

    A line is written whole and flushed to disk before the task counts as done; a line that was cut off is ignored.
    Lines of another key (other settings, another model) are dropped when the ledger is opened.

    Parameters
    ----------
    path
        File; None keeps the ledger in memory only.
    key
        Hash of everything that the results depend on.

    Examples
    --------
    >>> ledger = Ledger(None, "abc")
    >>> ledger.add("blocks.0", {"distortion": [0.0]})
    >>> "blocks.0" in ledger, ledger.results["blocks.0"]
    (True, {'distortion': [0.0]})
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self.results: dict[str, Any] = {}
        if path is None or not path.exists():
            return
        lines = read_bytes(path, 2**30).decode("utf-8", "replace").split("\n")
        good = []
        for line in lines:
            try:
                entry = parse_json(line, "a line")
                if entry["key"] == key:
                    self.results[entry["task"]] = entry["result"]
                    good.append(line)
            except (FewerError, KeyError, TypeError):
                continue
        if lines[-1] or len(good) != len(
            [line for line in lines if line]
        ):  # the last line must end, or the next joins it
            atomic_write_bytes(path, "".join(line + "\n" for line in good).encode())

    def __contains__(self, task: str) -> bool:
        return task in self.results

    def add(self, task: str, result: Any) -> None:
        """Note a finished task.

        Raises
        ------
        FewerError
            When the disk is full or the file cannot be written.
        """
        self.results[task] = result
        if self.path is None:
            return
        line = json.dumps({"key": self.key, "task": task, "result": result}, allow_nan=True) + "\n"
        append_line(self.path, line.encode(), flush=True)

    def clear(self) -> None:
        """Remove the file; results stay in memory."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
