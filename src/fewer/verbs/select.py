"""Select: from a pool of unlabelled images to a queue for annotators, and further rounds when labels come back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from typing_extensions import Unpack

from fewer.core.budget import Budget, parse_budgets
from fewer.core.display import Fact, Shown, counted
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, real_path
from fewer.core.options import RunOptions, split_options
from fewer.core.progress import Progress, usual_progress
from fewer.data.images import left_out, list_images, printable, why_no_name
from fewer.models.spec import check_named, remember_spec
from fewer.models.trust import trusting
from fewer.selection.embed import Embedded, EmbedJob, embed
from fewer.selection.export import can_open, check_formats, export
from fewer.selection.folder import QueueFolder
from fewer.selection.given import given_vectors
from fewer.selection.labels import Returned, read_labels
from fewer.selection.methods import METHODS, check_method
from fewer.selection.plan import Asked, QueuePlan, Skipped
from fewer.selection.rounds import Known, Wanted
from fewer.selection.settings import SelectOptions, SelectSettings
from fewer.selection.uncertainty import cold_start
from fewer.tasks import TASKS, open_task, task_that_warms_up

__all__ = ["Selected", "select"]

FEATURES = "fewer/dinov2-small"
OWN = (*RunOptions.__annotations__, "labels", "predictions", "trust")
"""Options that are no settings."""
WARM_UP = "warm-up"
"""Features of a network of a task that is warmed up on the pool first; also the folder that it is kept in."""


@dataclass(frozen=True, eq=False, repr=False)
class Selected(Shown):
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

    def shown(self) -> tuple[str, list[Fact]]:
        """How many images were chosen, the first of them, and where the queue is."""
        last = self.plan.rounds[-1]
        first = ", ".join(asked.name for asked in self.chosen[:5]) + (", ..." if len(self.chosen) > 5 else "")
        return f"Round {last.round}: {last.chosen} of {last.pool} images to label, by {last.method}", [
            ("first", first),
            ("labels back", counted(len(self.returned.labels), "label") if self.returned is not None else ""),
            ("lost", ", ".join(self.lost[:5])),
            ("written", ", ".join(path.name for path in self.written)),
            ("folder", str(self.folder)),
        ]


def select(
    pool: str | Path | None,
    budget: str | Budget,
    *,
    out: str | Path,
    method: str = "coverage",
    features: Any = None,
    proceed: bool = False,
    settings: SelectSettings | None = None,
    **options: Unpack[SelectOptions],
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
        segmentation network that learns from the pool's images first, without labels; ``quality`` for statistics of
        how images look, which tell defects and not objects; or an ``.npy`` file [N, d] with one row per image in the
        order of the sorted relative paths.
    proceed
        A further round of the queue in ``out``.
    settings
        All settings in one object; see :class:`~fewer.selection.settings.SelectSettings`.
    **options
        Single settings by name, which go over ``settings``: ``layer`` and ``input_size`` of the model that gives
        features, ``to`` (exports, see :data:`fewer.selection.export.FORMATS`), ``seed``, and ``batch``, ``backend``
        and ``workers`` of the embedding. And what a round can be given:

        ``labels`` that came back, see :func:`fewer.selection.labels.read_labels`; ``predictions`` of a model trained
        meanwhile, see :func:`fewer.selection.predictions.read_predictions`; ``resume`` and ``overwrite``, to go on
        with an interrupted first round, or throw an old queue away; ``trust``, the Python file that the queue names
        its features by (see :func:`fewer.load`); ``progress``, and ``command`` for the page.

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
    own, named = split_options("select", options, OWN, SelectSettings.model_fields)
    how = (settings or SelectSettings()).changed(named)
    progress, began = own.get("progress") or usual_progress(), perf_counter()
    labels, predictions = own.get("labels"), own.get("predictions")
    resume, overwrite = own.get("resume", False), own.get("overwrite", False)
    wanted = Wanted(method, one_budget(budget), how.seed)
    check_method(method)
    spread = Spread(how.batch, how.backend, how.workers)
    numbers = {"batch": how.batch, "input size": how.input_size, "number of workers": how.workers}
    _check_numbers(how.seed, numbers)
    check_formats(how.to)
    if pool is None and not proceed:
        raise FewerError("which pool? give a folder of images, for example: fewer select photos/ --budget labels=100")
    with (
        trusting(own.get("trust", False)),
        QueueFolder.create(out, proceed=proceed, resume=resume, overwrite=overwrite) as queue,
    ):
        queue.begin_round(resume=resume)
        config = _config(queue, pool, features, how.layer, how.input_size, how.seed)
        queue.write_config(config)
        root = Path(config["pool"])
        with progress.stage("list", None) as stage:
            names, gone, unnamed = _names(queue, root)
            stage.advance(note=f"{len(names)} images")
        before = queue.read_plan() if proceed else None
        returned = read_labels(labels, root, names) if labels is not None else None
        if before is None:
            _check_early(wanted, len(names), predictions, returned, unnamed)
        model = features if features is not None and not isinstance(features, (str, Path)) else config["features"]
        vectors, corrupted = _vectors(queue, model, config, names, gone, spread, features is None and proceed, progress)
        known = Known(root, config["features"], names, gone, vectors, corrupted, before, returned)
        plan, chosen = known.choose(wanted, predictions, progress)
        plan = _finished(plan, unnamed, perf_counter() - began)
        with progress.stage("write", None) as stage:
            lost = [asked.name for asked in plan.waiting() if not can_open(root / asked.name)]
            written = _write(queue, plan, known, how.to, own.get("command"), set(lost))
            queue.end_round()
            stage.advance()
        written = [queue.home / path.relative_to(queue.path) for path in written]
        return Selected(plan, chosen, queue.home, returned, written, lost)


@dataclass(frozen=True)
class Spread:
    """How the embedding is spread over this machine or others; see :func:`fewer.selection.embed.embed`."""

    batch: int
    backend: str
    workers: int | None

    @property
    def count(self) -> int:
        """Workers at once."""
        return self.workers or (1 if self.backend == "serial" else os.cpu_count() or 1)


def _check_numbers(seed: int, numbers: Mapping[str, int | None]) -> None:
    for name, value in numbers.items():
        if value is not None and not 1 <= value <= 32_768:
            raise FewerError(f"the {name} is {value}; it must be from 1 to 32768")
    if not 0 <= seed < 2**63:
        raise FewerError(f"the seed is {str(seed)[:30]}; it must be from 0 to below 2 to the power of 63")


def _finished(plan: QueuePlan, unnamed: list[Skipped], seconds: float) -> QueuePlan:
    """The plan with the time of its last round, and the files that were left out for their names or kinds."""
    last = plan.rounds[-1].model_copy(update={"seconds": round(seconds, 2)})
    return plan.model_copy(update={"rounds": [*plan.rounds[:-1], last], "skipped": [*plan.skipped, *unnamed]})


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
    if not isinstance(budget, (str, Budget)):
        raise FewerError(f"a budget is text, for example labels=100; got {budget!r}")
    if isinstance(budget, str) and budget.strip().rstrip("%").isdecimal():
        raise FewerError(f"the budget {budget.strip()!r} does not say of what; write labels={budget.strip()}")
    found = parse_budgets(budget)
    if len(found) != 1 or found[0].metric != "labels":
        raise FewerError(f"images are chosen under one budget of labels, for example labels=100; got {budget}")
    return found[0]


def _check_early(
    wanted: Wanted,
    images: int,
    predictions: str | Path | None,
    returned: Returned | None,
    skipped: Sequence[Skipped],
) -> None:
    """Tell what cannot work before the pool is embedded, which may take hours."""
    wanted.count(images, skipped)
    has_classes = returned is not None and len({c for c in returned.labels.values() if c is not None}) > 1
    needs = METHODS[wanted.method].needs if wanted.method in METHODS else ()
    if "predictions" in needs and predictions is None and not has_classes:
        raise cold_start(wanted.method)


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
        if _by_task(wanted["features"]) and (layer is not None or input_size is not None):
            raise FewerError(
                f"the features {wanted['features']} are measured in an image's own pixels; leave --layer and "
                "--input-size out"
            )
    root = pool if pool is not None else old.get("pool")
    if not isinstance(root, (str, Path)) or not str(root):
        raise FewerError(f"{queue.path / 'config.toml'} names no pool; give the folder of images again")
    return {key: value for key, value in wanted.items() if value is not None} | {
        "pool": str(real_path(root)),
        "seed": seed,
    }


def _names(queue: QueueFolder, root: Path) -> tuple[list[str], frozenset[int], list[Skipped]]:
    """File of every row: old rows keep their place, new images come at the end. And what no tool names or reads."""
    here, unnamed = [], []
    for path in list_images(root):
        name = path.relative_to(root).as_posix()
        if reason := why_no_name(name):
            unnamed.append(Skipped(name=str(printable(name)), reason=reason))
        else:
            here.append(name)
    unnamed += [Skipped(name=name, reason=reason) for name, reason in left_out(root, queue.home)[0]]
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
    spread: Spread,
    unasked: bool,
    progress: Progress,
) -> tuple[Embedded, Callable[[], np.ndarray] | None]:
    """Vectors of all images, and a function that makes those of corrupted ones."""
    if isinstance(model, (str, Path)) and str(model).endswith(".npy"):
        return given_vectors(Path(model), names, gone), None
    if _by_task(model):
        return _described(str(model), Path(config["pool"]), names, gone, progress), None
    if unasked:  # a queue may come from someone else
        check_named(model, str(queue.path / "config.toml"), before=True)
    else:
        remember_spec(model)
    size = config.get("input_size")
    preprocess: dict[str, Any] = {"input_size": (3, size, size)} if size else {}
    if isinstance(model, str) and model == WARM_UP:
        files = [Path(config["pool"]) / name for row, name in enumerate(names) if row not in gone]
        make = task_that_warms_up(config["pool"]).warm_features
        model = make(files, queue.path / WARM_UP, seed=config["seed"], side=size, progress=progress)
        preprocess = model.preprocess.to_dict()

    def run(corruption: int | None, file: str, stage_name: str) -> Embedded:
        # several workers share the cores among them
        threads = 1 if spread.count > 1 and spread.backend != "thread" else None
        job = EmbedJob(Path(config["pool"]), model, config.get("layer"), preprocess, corruption, threads, unasked)
        with progress.stage(stage_name, len(names)) as stage:
            return embed(
                job,
                names,
                queue.path / file,
                advance=stage.advance,
                batch=spread.batch,
                backend=spread.backend,
                workers=spread.count,
                gone=gone,
            )

    vectors = run(None, "vectors.f32", "embed")
    return vectors, lambda: run(config["seed"], "corrupted.f32", "embed corrupted").vectors


def _by_task(model: Any) -> bool:
    """Whether features are named by a task that describes images without a network."""
    return isinstance(model, str) and model in TASKS and open_task(model).describes


def _described(task: str, root: Path, names: list[str], gone: frozenset[int], progress: Progress) -> Embedded:
    """Vectors that a task makes of the images themselves, without a network."""
    rows = [row for row in range(len(names)) if row not in gone]
    found, bad = open_task(task).describe([root / names[row] for row in rows], progress=progress)
    vectors = np.zeros((len(names), found.shape[1]), np.float32)
    vectors[rows] = found
    unknown = np.full(len(names), np.nan, np.float32)
    return Embedded(vectors, unknown, {rows[at]: reason for at, reason in bad.items()}, 0)


def _write(
    queue: QueueFolder, plan: QueuePlan, known: Known, to: Sequence[str], command: str | None, lost: set[str]
) -> list[Path]:
    from fewer.selection.page import render_gallery

    page = render_gallery(plan, known.vectors.vectors, known.names, known.root, command, str(queue.home))
    written = [atomic_write_text(queue.path / "gallery.html", page)]
    waiting = [asked for asked in plan.waiting() if asked.name not in lost]
    written += export(waiting, known.root, queue.path, to)
    plan.save(queue.path)  # last: a queue without a plan counts as unfinished
    return written
