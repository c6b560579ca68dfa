"""Select: from a pool of unlabelled images to a queue for annotators, and further rounds when labels come back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fewer.core.budget import Budget, parse_budgets
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.progress import Progress, usual_progress
from fewer.data.decode import read_image
from fewer.data.images import list_images, printable, why_no_name
from fewer.selection.embed import Embedded, EmbedJob, embed
from fewer.selection.export import can_open, check_formats, export
from fewer.selection.folder import QueueFolder
from fewer.selection.labels import Returned, read_labels
from fewer.selection.methods import METHODS, check_method, choose
from fewer.selection.plan import Asked, QueuePlan, Round, Skipped
from fewer.selection.pool import Pool, Selection
from fewer.selection.predictions import read_predictions
from fewer.selection.uncertainty import cold_start, probe_predictions
from fewer.tasks import task_that_warms_up

__all__ = ["Selected", "select"]

FEATURES = "fewer/dinov2-small"
WARM_UP = "warm-up"
"""Features of a network of a task that is warmed up on the pool first; also the folder that it is kept in."""
_LARGE = 200_000  # images from which on the built-in probe has fewer members


@dataclass(frozen=True, eq=False)
class Selected:
    """What :func:`select` returns.

    Attributes
    ----------
    plan
        The queue of all rounds.
    chosen
        The images of this round, the first one first.
    folder
        The queue folder.
    returned
        Labels that came back before this round, if any.
    written
        Files for people and tools: the gallery and the exports.
    lost
        Images of earlier rounds that wait for a label, but are gone or broken by now: they are in no export.
    """

    plan: QueuePlan
    chosen: list[Asked]
    folder: Path
    returned: Returned | None
    written: list[Path]
    lost: list[str] = field(default_factory=list)


def select(
    pool: str | Path | None,
    budget: str | Budget,
    *,
    out: str | Path,
    method: str = "coverage",
    features: Any = None,
    layer: str | None = None,
    input_size: int | None = None,
    labels: str | Path | None = None,
    predictions: str | Path | None = None,
    to: Sequence[str] = ("labelstudio", "coco"),
    seed: int = 0,
    batch: int = 32,
    backend: str = "thread",
    workers: int | None = None,
    proceed: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
) -> Selected:
    """Choose the images of a pool that should be labelled first, and write the queue down.

    Parameters
    ----------
    pool
        Folder of images; with ``proceed`` None is the folder of the first round.
    budget
        ``labels=100`` or ``labels=5%`` of the images that can be chosen.
    out
        Queue folder: all state is there.
    method
        See :data:`fewer.selection.methods.METHODS`.
    features
        Model spec or module whose features describe the images (``fewer/dinov2-small`` by default); ``warm-up`` for a
        segmentation network that learns from the pool's images first, without labels; or an ``.npy`` file [N, d] with
        one row per image in the order of the sorted relative paths.
    layer
        Layer of the model whose output is pooled.
    input_size
        Side of the model's input in pixels; the model's own by default.
    labels
        Labels that came back: see :func:`fewer.selection.labels.read_labels`.
    predictions
        Predictions of a model trained meanwhile: see :func:`fewer.selection.predictions.read_predictions`.
    to
        Exports, see :data:`fewer.selection.export.FORMATS`.
    seed
        The same seed gives the same queue.
    batch, backend, workers
        Of the embedding.
    proceed
        A further round of the queue in ``out``.
    resume, overwrite
        Go on with an interrupted first round, or throw an old queue away.
    progress
        Is told about the stages.
    command
        The command line, for the page.

    Raises
    ------
    FewerError
        When the pool is empty, the budget is more than it can give, the method needs what is not there, or a file
        cannot be read or written.

    Examples
    --------
    >>> import fewer
    >>> fewer.select("pool/", "labels=100", out="queue/").chosen[0].name  # doctest: +SKIP
    'b/0423.png'
    """
    progress = progress or usual_progress()
    wanted = one_budget(budget)
    check_method(method)
    for name, value in (("batch", batch), ("input size", input_size), ("number of workers", workers)):
        if value is not None and not 1 <= value <= 32_768:
            raise FewerError(f"the {name} is {value}; it must be from 1 to 32768")
    if not 0 <= seed < 2**63:
        raise FewerError(f"the seed is {str(seed)[:30]}; it must be from 0 to below 2 to the power of 63")
    check_formats(to)
    if pool is None and not proceed:
        raise FewerError("which pool? give a folder of images, for example: fewer select photos/ --budget labels=100")
    began = perf_counter()
    with QueueFolder.create(out, proceed=proceed, resume=resume, overwrite=overwrite) as queue:
        queue.begin_round(resume=resume)
        config = _config(queue, pool, features, layer, input_size, seed)
        root = Path(config["pool"])
        with progress.stage("list", None) as stage:
            names, gone, unnamed = _names(queue, root)
            stage.advance(note=f"{len(names)} images")
        before = queue.read_plan() if proceed else None
        returned = read_labels(labels, root, names) if labels is not None else None
        if before is None:
            _check_early(method, wanted, len(names), predictions, returned, unnamed)
        model = features if features is not None and not isinstance(features, (str, Path)) else config["features"]
        vectors, job = _vectors(queue, model, config, names, gone, batch, backend, workers, progress)
        plan, selection, pool_size = _round(
            names, gone, vectors, before, returned, predictions, method, wanted, seed, config, progress, queue, job
        )
        rounds = [*(before.rounds if before else []), _of_round(before, method, wanted, seed, selection, pool_size)]
        rounds[-1] = rounds[-1].model_copy(update={"seconds": round(perf_counter() - began, 2)})
        chosen = _asked(selection, names, rounds[-1].round)
        plan = plan.model_copy(
            update={"rounds": rounds, "queue": [*plan.queue, *chosen], "skipped": [*plan.skipped, *unnamed]}
        )
        with progress.stage("write", None) as stage:
            lost = [asked.name for asked in plan.waiting() if not can_open(root / asked.name)]
            written = _write(queue, plan, vectors, names, root, to, command, set(lost))
            queue.end_round()
            stage.advance()
        written = [queue.home / path.relative_to(queue.path) for path in written]
        return Selected(plan, chosen, queue.home, returned, written, lost)


def one_budget(budget: str | Budget) -> Budget:
    """The budget of labels.

    Raises
    ------
    FewerError
        When there is none, or anything else beside it.

    Examples
    --------
    >>> one_budget("labels=5").value
    5.0
    """
    found = parse_budgets(budget)
    if len(found) != 1 or found[0].metric != "labels":
        raise FewerError(f"images are chosen under one budget of labels, for example labels=100; got {budget}")
    return found[0]


def _check_early(
    method: str,
    budget: Budget,
    images: int,
    predictions: str | Path | None,
    returned: Returned | None,
    skipped: Sequence[Skipped],
) -> None:
    """Tell what cannot work before the pool is embedded, which may take hours."""
    _count(budget, images, skipped)
    has_classes = returned is not None and len({c for c in returned.labels.values() if c is not None}) > 1
    if method in METHODS and "predictions" in METHODS[method].needs and predictions is None and not has_classes:
        raise cold_start(method)


def _count(budget: Budget, images: int, skipped: Sequence[Skipped]) -> int:
    """Images that the budget allows; where that is more than there are, the files that were skipped are named."""
    try:
        return budget.count(images)
    except FewerError as error:
        if not skipped:
            raise
        told = ", ".join(f"{one.name} ({one.reason})" for one in skipped[:3])
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise FewerError(f"{error}; left out are {told}{more}") from None


def _config(
    queue: QueueFolder, pool: Any, features: Any, layer: str | None, input_size: int | None, seed: int
) -> dict[str, Any]:
    """What the vectors depend on; the first round decides it, later ones may only repeat it."""
    described = str(features) if isinstance(features, (str, Path)) else None
    if features is not None and described is None:
        described = f"a {type(features).__name__} object"
    wanted = {"features": described, "layer": layer, "input_size": input_size}
    old = queue.read_config()
    if old and queue.has_plan():
        for key, value in wanted.items():
            if value is not None and value != old.get(key):
                raise FewerError(
                    f"{queue.path} was made with {key} {old.get(key)!r}, not {value!r}; leave it out, or start anew "
                    "with --overwrite"
                )
        wanted = {key: old.get(key) for key in wanted}
        if wanted["features"] and str(wanted["features"]).startswith("a ") and features is None:
            raise FewerError(f"{queue.path} was made with {wanted['features']}; give it again, as features=")
    else:
        wanted["features"] = described or FEATURES
        if wanted["features"] == WARM_UP and layer is not None:
            raise FewerError("the features of a warm-up are those of the network's bottleneck; leave --layer out")
    root = Path(pool) if pool is not None else Path(old["pool"])
    config = {key: value for key, value in wanted.items() if value is not None} | {
        "pool": str(root.resolve()),
        "seed": seed,
    }
    queue.write_config(config)
    return config


def _names(queue: QueueFolder, root: Path) -> tuple[list[str], frozenset[int], list[Skipped]]:
    """File of every row: old rows keep their place, new images come at the end. And files whose names no tool reads."""
    here, unnamed = [], []
    for path in list_images(root):
        name = path.relative_to(root).as_posix()
        if reason := why_no_name(name):
            unnamed.append(Skipped(name=str(printable(name)), reason=reason))
        else:
            here.append(name)
    if not here:
        raise FewerError(f"no image of {root} can be used; of the first, {unnamed[0].reason}")
    names = queue.read_names()
    known = set(names)
    new = [name for name in here if name not in known]
    if new:
        names += new
        queue.write_names(names)
    present = set(here)
    return names, frozenset(row for row, name in enumerate(names) if name not in present), unnamed


def _vectors(
    queue: QueueFolder,
    model: Any,
    config: dict[str, Any],
    names: list[str],
    gone: frozenset[int],
    batch: int,
    backend: str,
    workers: int | None,
    progress: Progress,
) -> tuple[Embedded, Any]:
    """Vectors of all images, and a function that makes those of corrupted ones."""
    if isinstance(model, (str, Path)) and str(model).endswith(".npy"):
        return _given(Path(model), names, gone), None
    count = workers or (1 if backend == "serial" else os.cpu_count() or 1)
    size = config.get("input_size")
    preprocess: dict[str, Any] = {"input_size": (3, size, size)} if size else {}
    if isinstance(model, str) and model == WARM_UP:
        files = [Path(config["pool"]) / name for row, name in enumerate(names) if row not in gone]
        make = task_that_warms_up(config["pool"]).warm_features
        model = make(files, queue.path / WARM_UP, seed=config["seed"], side=size, progress=progress)
        preprocess = model.preprocess.to_dict()
    spread = {"batch": batch, "backend": backend, "workers": count, "gone": gone}

    def run(corruption: int | None, file: str, stage_name: str) -> Embedded:
        # several workers share the cores among them
        threads = 1 if count > 1 and backend != "thread" else None
        job = EmbedJob(Path(config["pool"]), model, config.get("layer"), preprocess, corruption, threads)
        with progress.stage(stage_name, len(names)) as stage:
            return embed(job, names, queue.path / file, advance=stage.advance, **spread)

    vectors = run(None, "vectors.f32", "embed")
    return vectors, lambda: run(config["seed"], "corrupted.f32", "embed corrupted").vectors


def _given(path: Path, names: list[str], gone: frozenset[int]) -> Embedded:
    """Vectors from a file, whose rows are the present images in the order of their paths."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OverflowError, TypeError, RecursionError, SyntaxError, MemoryError) as error:
        raise FewerError(f"cannot read features from {path}: {error}") from None
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except ValueError as error:
        raise FewerError(f"cannot read features from {path}: {error}") from None
    present = sorted(name for row, name in enumerate(names) if row not in gone)
    if values.ndim != 2 or len(values) != len(present):
        raise FewerError(
            f"{path} has the shape {values.shape}, but the pool has {len(present)} images; it needs one row per image, "
            "in the order of their sorted relative paths"
        )
    if names != present:  # images came or went since the first round, and rows of the queue keep their places
        place = {name: at for at, name in enumerate(present)}
        values = values[[place.get(name, 0) for name in names]]
    bad = {row: "its features are NaN or infinite" for row in np.flatnonzero(~_finite(values)).tolist()}
    return Embedded(values, np.full(len(names), np.nan, np.float32), bad, len(names))


def _finite(values: np.ndarray) -> np.ndarray:
    from fewer.selection.pool import blocks

    return np.concatenate([np.isfinite(block).all(1) for _, block in blocks(values)])


def _round(
    names: list[str],
    gone: frozenset[int],
    vectors: Embedded,
    before: QueuePlan | None,
    returned: Returned | None,
    predictions: str | Path | None,
    method: str,
    budget: Budget,
    seed: int,
    config: dict[str, Any],
    progress: Progress,
    queue: QueueFolder,
    corrupted: Any,
) -> tuple[QueuePlan, Selection, int]:
    """Put together what is known and choose."""
    labelled = {**(before.labelled if before else {}), **(returned.labels if returned else {})}
    row_of = {name: row for row, name in enumerate(names)}
    asked = {*labelled, *(a.name for a in (before.queue if before else []))}
    taken = np.array(sorted(row_of[name] for name in asked if name in row_of), np.int64)
    skipped = dict(vectors.skipped)
    excluded = np.array(sorted({*skipped, *gone}), np.int64)
    facts: dict[str, Any] = {}
    if predictions is not None:
        read = read_predictions(predictions, names)
        facts = {"uncertainty": read.uncertainty, "disagreement": read.disagreement}
        facts |= {"predictions": read.probabilities, "foreground": read.foreground}
    else:
        facts["foreground"] = vectors.foreground
        facts["predictions"] = _probe(vectors.vectors, labelled, row_of, set(excluded.tolist()), seed)
    pool = Pool(vectors.vectors, labelled=taken, excluded=excluded, corrupted=corrupted, **facts)
    with progress.stage("choose", None) as stage:
        left_out = [Skipped(name=names[row], reason=reason) for row, reason in sorted(skipped.items())]
        selection = choose(pool, method, _count(budget, len(pool.candidates()), left_out), seed)
        # vectors of a file or an earlier round say nothing about the images now: the chosen ones are looked at
        while broken := _unreadable(selection.rows, names, Path(config["pool"])):
            skipped |= broken
            left_out = [Skipped(name=names[row], reason=reason) for row, reason in sorted(skipped.items())]
            pool = replace(pool, excluded=np.union1d(pool.excluded, list(broken)))
            selection = choose(pool, method, _count(budget, len(pool.candidates()), left_out), seed)
        stage.advance(note=method)
    plan = QueuePlan(
        pool=config["pool"],
        features=config["features"],
        images=len(names) - len(gone),
        skipped=left_out,
        rounds=[],
        queue=list(before.queue) if before else [],
        labelled=labelled,
    )
    return plan, selection, len(pool.candidates())


def _unreadable(rows: np.ndarray, names: list[str], root: Path) -> dict[int, str]:
    """Row and reason of every image that cannot be decoded."""
    broken = {}
    for row in rows.tolist():
        try:
            read_image(root / names[row])
        except Exception as error:  # a broken file can make a decoder raise anything
            broken[row] = str(error) or type(error).__name__
    return broken


def _probe(
    vectors: np.ndarray, labelled: dict[str, str | None], row_of: dict[str, int], excluded: set[int], seed: int
) -> np.ndarray | None:
    """Predictions of a small probe, where the labels so far have classes that it can be trained on."""
    known = [(row_of[name], label) for name, label in labelled.items() if label is not None and name in row_of]
    known = sorted((row, label) for row, label in known if row not in excluded)
    if len({label for _, label in known}) < 2:
        return None
    rows = np.array([row for row, _ in known], np.int64)
    classes = np.array([label for _, label in known])
    return probe_predictions(vectors, rows, classes, members=8 if len(vectors) < _LARGE else 3, seed=seed)


def _of_round(
    before: QueuePlan | None, method: str, budget: Budget, seed: int, selection: Selection, pool: int
) -> Round:
    number = len(before.rounds) + 1 if before else 1
    return Round(
        round=number, method=method, budget=str(budget), seed=seed, chosen=len(selection.rows), pool=pool, seconds=0.0
    )


def _asked(selection: Selection, names: list[str], number: int) -> list[Asked]:
    columns = zip(selection.rows, selection.groups, selection.stands_for, selection.scores, selection.why, strict=True)
    return [
        Asked(
            round=number,
            rank=rank,
            name=names[row],
            group=int(group),
            stands_for=float(round(stands, 2)),
            score=float(score),
            why=why,
        )
        for rank, (row, group, stands, score, why) in enumerate(columns, 1)
    ]


def _write(
    queue: QueueFolder,
    plan: QueuePlan,
    vectors: Embedded,
    names: list[str],
    root: Path,
    to: Sequence[str],
    command: str | None,
    lost: set[str],
) -> list[Path]:
    from fewer.selection.page import render_gallery

    page = render_gallery(plan, vectors.vectors, names, root, command)
    written = [atomic_write_text(queue.path / "gallery.html", page)]
    written += export([asked for asked in plan.waiting() if asked.name not in lost], root, queue.path, to)
    plan.save(queue.path)  # last: a queue without a plan counts as unfinished
    return written
