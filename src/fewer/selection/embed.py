"""Embed a pool: image files to vectors, on threads, processes or a cluster, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.execute import run_tasks
from fewer.core.ledger import Ledger
from fewer.selection.store import VectorFile

__all__ = ["EmbedJob", "Embedded", "embed"]


@dataclass(frozen=True)
class EmbedTask:
    """Embed the images of the rows ``start`` to ``stop``."""

    start: int
    names: tuple[str, ...]
    rows: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.rows[0]}-{self.rows[-1]}x{len(self.rows)}"


@dataclass
class EmbedJob:
    """What the tasks of embedding share: where the images are and which model makes vectors of them.

    The model is named by its spec and loaded once in every worker process, so that no weights travel.

    Parameters
    ----------
    root
        Folder that the names are relative to; every worker must see it.
    model
        Spec (see :func:`fewer.models.spec.load_model`) or an ``nn.Module``.
    layer
        Layer whose output is pooled; see :func:`fewer.selection.extract.extractor`.
    preprocess
        Overrides of the model's preprocessing, for example ``{"input_size": (3, 112, 112)}``.
    corruption
        None, or the seed with which every image is corrupted first (see :mod:`fewer.data.corrupt`).
    threads
        Of the tensor library in each worker; None leaves it alone.
    unasked
        The user did not name the model, a folder did: it is loaded without the network.
    """

    root: Path
    model: Any
    layer: str | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)
    corruption: int | None = None
    threads: int | None = None
    unasked: bool = False

    def __post_init__(self) -> None:
        self._lock, self._made = Lock(), None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_made")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def make(self) -> tuple[Any, Callable[[Any], np.ndarray], int]:
        """Load the model: (preprocessing, function from a batch to vectors, length of a vector)."""
        with self._lock:
            if self._made is None:
                import torch

                from fewer.models.plain import own_copy
                from fewer.models.spec import load_model
                from fewer.selection.extract import extractor

                if self.threads is not None:
                    torch.set_num_threads(self.threads)
                # the caller's module is never run: a call may write into its buffers
                model = own_copy(self.model) if isinstance(self.model, torch.nn.Module) else self.model
                with self._around():
                    loaded = load_model(model, **self.preprocess)
                example = torch.zeros(1, *loaded.input_size)
                vectors = extractor(loaded.model, example, self.layer)
                self._made = loaded.preprocess, vectors, vectors(example).shape[1]
            return self._made

    def _around(self) -> AbstractContextManager[None]:
        """What a model is loaded in: code of a file that is trusted may do what it likes."""
        from fewer.models.foreign import alone
        from fewer.models.spec import is_file_spec

        return alone() if self.unasked and not is_file_spec(str(self.model)) else nullcontext()

    def worker(self) -> Callable[[EmbedTask], tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]]:
        """The task function: (vectors, Otsu foreground shares, [(row, why it could not be read)])."""
        import torch

        from fewer.data.corrupt import corrupted
        from fewer.data.decode import read_image, to_array
        from fewer.selection.foreground import foreground_share

        preprocess, vectors, dim = self.make()

        def work(task: EmbedTask) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
            out = np.zeros((len(task.rows), dim), np.float32)
            share = np.full(len(task.rows), np.nan, np.float32)
            arrays, places, skipped = [], [], []
            for place, (row, name) in enumerate(zip(task.rows, task.names, strict=True)):
                try:
                    image = read_image(self.root / name)
                    share[place] = foreground_share(image)
                    if self.corruption is not None:
                        image = corrupted(image, np.random.default_rng([self.corruption, row]))
                    arrays.append(to_array(image, preprocess))
                    places.append(place)
                except FewerError:
                    raise
                except Exception as error:  # a broken file can make a decoder raise anything
                    skipped.append((row, str(error) or type(error).__name__))
            if arrays:
                with self._lock:  # one model, one forward at a time: the decoding is what runs in parallel in threads
                    out[places] = vectors(torch.from_numpy(np.stack(arrays)))
            for place in [p for p in places if not np.isfinite(out[p]).all()]:
                skipped.append((task.rows[place], "the model's features of it are NaN or infinite"))
                out[place] = 0
            return out, share, skipped

        return work

    def key(self) -> str:
        """Hash of everything that the vectors depend on besides the images."""
        preprocess, _, dim = self.make()
        what = self.model if isinstance(self.model, str) else type(self.model).__name__
        facts = [what, self.layer, preprocess.to_dict(), dim, self.corruption]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        if not isinstance(self.model, str) or ".py" in self.model:
            import torch

            from fewer.data.samples import tensor_bytes
            from fewer.models.spec import load_model

            with self._around():
                model = self.model if isinstance(self.model, torch.nn.Module) else load_model(self.model).model
            for name, tensor in model.state_dict().items():
                digest.update(name.encode() + tensor_bytes(tensor))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors of a pool.

    Attributes
    ----------
    vectors
        [N, d] memory map; rows of skipped images are zero.
    foreground
        [N] share of the image that a threshold calls foreground; NaN where it is unknown.
    skipped
        Row and reason of every image that could not be read.
    resumed
        Images whose vectors were there already.
    """

    vectors: np.ndarray
    foreground: np.ndarray
    skipped: dict[int, str]
    resumed: int


def embed(
    job: EmbedJob,
    names: Sequence[str],
    file: Path,
    *,
    gone: frozenset[int] = frozenset(),
    batch: int = 32,
    backend: str = "serial",
    workers: int = 1,
    advance: Callable[[int, str], None] = lambda images, latest: None,
) -> Embedded:
    """Embed images into a memory-mapped file; vectors that are there already are kept.

    Parameters
    ----------
    job
        The model and the folder.
    names
        File of every row, relative to the job's folder. Rows never change their place; new ones come at the end.
    file
        The vectors; ``FILE.jsonl`` beside it lists the finished batches.
    gone
        Rows whose files no longer exist; they are left as they are.
    batch
        Images per task and per forward pass.
    backend, workers
        See :func:`fewer.core.execute.run_tasks`.
    advance
        Called with the number of images that were done and the name of the latest, after every batch.

    Raises
    ------
    FewerError
        When the model cannot be used, no image can be read, or the disk is full. What was embedded is kept.
    """
    _, _, dim = job.make()
    book = file.with_name(file.name + ".jsonl")
    ledger = Ledger(book, job.key())
    store = VectorFile(file, dim)
    store.reserve(len(names))
    foreground = np.full(len(names), np.nan, np.float32)
    done = np.zeros(len(names), bool)
    for result in ledger.results.values():
        rows = np.asarray(result["rows"], int)
        foreground[rows] = [np.nan if s is None else s for s in result["foreground"]]
        done[rows] = True
        done[[row for row, _ in result["skipped"]]] = False  # a file may have been mended since: look again
    resumed = int(done.sum())
    todo = np.array([row for row in np.flatnonzero(~done) if row not in gone], int)
    tasks = [
        EmbedTask(int(rows[0]), tuple(names[int(r)] for r in rows), tuple(int(r) for r in rows))
        for rows in np.split(todo, range(batch, len(todo), batch))
        if len(rows)
    ]
    skipped: dict[int, str] = {}
    advance(len(names) - len(todo), "")
    for task, (vectors, shares, broken) in run_tasks(job, tasks, backend=backend, workers=workers):
        for run in np.split(np.arange(len(task.rows)), np.flatnonzero(np.diff(task.rows) > 1) + 1):
            store.write(task.rows[run[0]], vectors[run])
        told = [None if np.isnan(s) else round(float(s), 4) for s in shares]
        ledger.add(str(task), {"rows": task.rows, "foreground": told, "skipped": broken})
        foreground[list(task.rows)] = shares
        skipped.update(broken)
        advance(len(task.rows), task.names[-1])
    if names and len(skipped) + len(gone) == len(names):
        row, reason = min(skipped.items()) if skipped else (0, "the file is gone")
        book.unlink(missing_ok=True)  # there is nothing to go on with
        raise FewerError(f"none of the {len(names)} images can be read; the first: {names[row]}: {reason}")
    return Embedded(store.read(len(names)), foreground, dict(sorted(skipped.items())), resumed)
