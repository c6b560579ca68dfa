"""``fewer demo``: the main job on a real pretrained Vision Transformer and real photos, without a network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.cli.demo_data import DATA, demo_data
from fewer.cli.flags import Shared, given
from fewer.cli.setting_flags import SettingFlags
from fewer.core.errors import FewerError, near_match

if TYPE_CHECKING:
    from fewer.cli.demo_time import Timed
    from fewer.core.progress import Course, Progress
    from fewer.engine.settings import Settings

__all__ = ["STAGES", "course_of", "demo"]

FOLDER = "demo-run"

TASK_DEMOS = ("detect3d", "gait", "quality")
"""Tasks that bring a demo of their own."""

_OWN = {
    "adapt": "fewer.tasks.segment.adapt_demo",
    "low-bit": "fewer.tasks.classify.lowbit_demo",
    "private": "fewer.private.demo",
    "select": "fewer.selection.demo",
    "uda": "fewer.tasks.segment.papers_demo",
}
"""Demos that neither compress nor belong to a task's table."""

DEMOS = {
    "fewer/dinov2-small": "half of the weights of a vision transformer, then time, with real photos",
    "fewer/mobilenet-v2": "the same for a small CNN",
    "detect3d": "a detector of LiDAR scans, on simulated streets",
    "gait": "who walks, on simulated walkers",
    "quality": "how images look, on simulated feedback",
    "adapt": "masks for another modality without labels there, on simulated heads",
    "uda": "the same by the published methods MS-MT, MT-UDA and LE-UDA, from few labels",
    "select": "which real digits should be labelled first: SAAL and others",
    "low-bit": "training in 4 and 2 bits, on real digits",
    "private": "real digits that the computer does not see",
    **{name: f"no demo, but data to try with: {what}" for name, (_, what) in DATA.items()},
}
"""Every demo and what it shows; see: fewer list demos."""

_FAST = {
    "fast match": 5, "fast runtimes": 9, "fast profile": 10, "fast statistics": 4, "fast sense": 12,
    "fast rounding": 12, "fast time plans": 12, "fast apply": 35, "fast time": 3, "fast evaluate": 1,
    "fast frontier": 6, "fast save": 1, "fast bench": 20,
}  # fmt: skip
"""The part about time."""

STAGES = {
    "fewer/dinov2-small": {
        "match": 6, "statistics": 10, "sense": 30, "contest": 20, "try dp": 38, "try lamp": 38, "try mean_lamp": 38,
        "try magnitude": 3, "try unrepaired": 2, "try bare_lamp": 2, "evaluate": 3, "baseline SparseGPT, uniform": 10,
        "baseline Wanda, uniform": 8, "frontier": 13, "additivity": 4, "save": 1, **_FAST,
    },
    "fewer/mobilenet-v2": {
        "match": 2, "statistics": 3, "sense": 35, "contest": 5, "try dp": 12, "try lamp": 12, "try mean_lamp": 12,
        "try mean_erk": 12, "try mean_uniform": 12, "try magnitude": 1, "try rebalanced": 1, "try unrepaired": 1,
        "try bare_lamp": 1, "evaluate": 1, "baseline SparseGPT, uniform": 5, "baseline Wanda, uniform": 4,
        "frontier": 2, "additivity": 1, "save": 1, **_FAST,
    },
}  # fmt: skip
"""Stages of the demo of a network, and about how many seconds each takes on two cores.

Which plans the contest makes real, the network decides: those that it passes over count no more.
"""


def demo(
    model: str = "fewer/dinov2-small",
    /,
    *,
    budget: str | None = None,
    settings: SettingFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Compress a real pretrained Vision Transformer with real photos: to half its weights, then for time.

    Both results are run folders like those of any other run (demo-run, demo-run-fast). A demo that was interrupted
    goes on where it stopped. Nothing is downloaded.

    Parameters
    ----------
    model
        fewer/dinov2-small or fewer/mobilenet-v2; or detect3d (a detector of LiDAR scans, on simulated scans),
        gait (who walks, on simulated walkers), quality (how images look, on simulated feedback), adapt (masks for
        another modality, on simulated heads), uda (the same by published methods), select (which digits should be
        labelled first), low-bit (training in 4 bits, on real digits) or private (real digits that the computer does
        not see). Data to try other commands with: photos, digits, lesions, heads, streets or walkers, each written as
        a folder of that name. See: fewer list demos
    budget
        As in: fewer compress --help [weights=50%]
    """
    shared = shared or Shared()
    if model in (*_OWN, *TASK_DEMOS, *DATA):
        ignored = [name for name, value in {"budget": budget, **given(settings)}.items() if value is not None]
        if ignored:
            raise FewerError(f"--{ignored[0].replace('_', '-')} has no meaning for the demo {model}; leave it out")
        if model in DATA:
            return demo_data(model, shared)
        if shared.dry_run:
            from fewer.cli.show import say_would

            place = shared.out or f"demo-{model}"
            return say_would([f"would run the demo {model} ({DEMOS[model]}) and write {place}"], shared.json)
        return _own_demo(model, shared) if model in _OWN else _task_demo(model, shared)
    if not {"/", ":"} & set(model) and not Path(model).exists():
        raise FewerError(f"there is no demo {model!r}{near_match(model, DEMOS)}")
    return _main_demo(model, budget or "weights=50%", settings, shared)


def _main_demo(model: str, budget: str, flags: SettingFlags | None, shared: Shared) -> int:
    """Both parts of the main job: the budget that was asked for, and one in time beside other runtimes."""
    from fewer.cli.config import resolve
    from fewer.cli.demo_time import is_over
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import say, times_box
    from fewer.cli.work import run_compress, show_finished
    from fewer.data.photos import real_photos

    chosen, _ = resolve(given(flags, shared), preset="demo")
    out, timed = shared.out or FOLDER, model in STAGES and "latency" not in budget
    begun = (Path(out) / "report.json").exists()
    half = begun and timed and not is_over(out) and _was_asked(out, model, budget, chosen)
    if shared.out is None and not shared.resume:
        # the demo's own folder may be used again: a finished demo is replaced, an interrupted one goes on
        finished = begun and not half
        shared = replace(shared, overwrite=finished, resume=not finished)
    photos = [photo.path for photo in real_photos()]
    course, seed = course_of(model, chosen, timed), shared.seed

    def second() -> Timed | None:
        return _second_part(model, photos, out, seed, terminal_progress(course)) if timed else None

    def more() -> dict[str, Any]:
        found = second()
        return {} if found is None else {"time": found.to_dict()}

    if half and shared.resume and not shared.dry_run:
        code = show_finished(shared, out, more)  # only the second part was interrupted
    else:
        bars = terminal_progress(course)
        code = run_compress(model, photos, budget, chosen, shared, out, progress=bars, more=more)
    if not (shared.json or shared.dry_run):
        found = second()
        if found is not None:
            say(times_box(found.report, found.runtimes, str(found.folder)))
        print(f"Now with images of your own:  fewer compress {model} --images PHOTOS/ --budget {budget} --out run/")
    return code


def _was_asked(out: str, model: str, budget: str, settings: Settings) -> bool:
    """Whether a finished first part is that of this very command."""
    from fewer.core.budget import model_budgets
    from fewer.core.run import RunFolder

    budgets = model_budgets(budget)
    wanted = settings.for_metrics(one.metric for one in budgets).model_dump(mode="json")
    kept = RunFolder.open(out).read_config()
    same = {name: value for name, value in wanted.items() if value is not None} == kept.get("settings")
    return same and kept.get("model") == model and kept.get("budget") == [str(one) for one in budgets]


def _second_part(model: str, photos: Sequence[Path], out: str, seed: int | None, progress: Progress) -> Timed | None:
    """Time is measured where it can be; what is too busy or lacks a package is told, and the demo is not spoilt."""
    from fewer.cli.demo_time import BUDGET, time_part

    try:
        return time_part(model, photos, out, seed, progress)
    except FewerError as error:
        print(f"The part about time ({BUDGET}) was left out: {error}", file=sys.stderr)
        return None


def course_of(model: str, settings: Settings, timed: bool = True) -> Course | None:
    """The stages that the demo will go through, with or without the part about time; None where they are not known."""
    from fewer.cli.demo_time import PART
    from fewer.core.progress import Course
    from fewer.engine.comparison import LABELS

    if model not in STAGES or settings.search:
        return None
    shown = {f"baseline {LABELS.get(name, name)}" for name in settings.baselines}
    stages = {k: t for k, t in STAGES[model].items() if k in shown or not k.startswith("baseline")}
    return Course({k: t for k, t in stages.items() if timed or not k.startswith(f"{PART} ")})


def _own_demo(name: str, shared: Shared) -> int:
    """Demos that need no compression."""
    from importlib import import_module

    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line

    run = import_module(_OWN[name]).demo
    out = shared.out or f"demo-{name}"
    return _show(run(out, seed=shared.seed or 0, progress=terminal_progress(), command=command_line()), shared)


def _show(done: Any, shared: Shared) -> int:
    from fewer.cli.show import as_json

    if shared.json:
        as_json(done.to_dict())
    else:
        print(*done.lines(), sep="\n")
    return 0


def _task_demo(name: str, shared: Shared) -> int:
    """A task's own demo; it is given the compression as a function, because tasks do not know the engine."""
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line
    from fewer.engine.settings import Settings
    from fewer.tasks import open_task

    def compress(run: str, data: str, budget: str, *, settings: dict[str, Any], **more: Any) -> Any:
        return fewer.compress(run, data, budget, settings=Settings.of(settings), **more)

    out = shared.out or f"demo-{name}"
    task: Any = open_task(name)
    return _show(
        task.demo(compress, out, seed=shared.seed or 0, progress=terminal_progress(), command=command_line()), shared
    )
