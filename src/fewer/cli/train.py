"""``fewer train``: a segmentation network from images and masks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from fewer.cli.flags import Shared, given
from fewer.core.errors import FewerError

__all__ = ["TrainFlags", "train"]

NETWORK = Group("Network", sort_key=11)
START = Group("How it starts", sort_key=12)
STEPS = Group("How it learns", sort_key=13)
DATA = Group("Images", sort_key=14)
WORK = Group("How the work is done", sort_key=15)


def _p(group: Group) -> Parameter:
    return Parameter(group=group, negative="", show_default=False)


@Parameter(name="*")
@dataclass
class TrainFlags:
    """The settings of a training, as flags. Defaults are those of ``fewer.tasks.segment.settings.TrainSettings``."""

    network: Annotated[str | None, _p(NETWORK)] = None
    """See: fewer list networks [unet]"""
    width: Annotated[int | None, _p(NETWORK)] = None
    """Channels of the first level [16]"""
    levels: Annotated[int | None, _p(NETWORK)] = None
    """Levels, each of half the resolution [4]"""
    dropout: Annotated[float | None, _p(NETWORK)] = None
    """Of networks that have it [0]"""

    init: Annotated[str | None, _p(START)] = None
    """A run folder, or the warm-up folder of fewer select, whose weights are the start [random]"""
    warm_up: Annotated[str | None, _p(START)] = None
    """Self-supervised training on all images first: restoration, contrastive or none [none]"""
    warm_up_steps: Annotated[int | None, _p(START)] = None
    """Its steps [300]"""
    warm_up_transfer: Annotated[str | None, _p(START)] = None
    """What is kept of it: all or encoder [all]"""

    steps: Annotated[int | None, _p(STEPS)] = None
    """Steps [500]"""
    batch: Annotated[int | None, _p(STEPS)] = None
    """Patches per step [4]"""
    every: Annotated[int | None, _p(STEPS)] = None
    """Steps between validations, which are also points to resume from [50]"""
    loss: Annotated[str | None, _p(STEPS)] = None
    """dice-ce, dice-focal, dice, tversky or ce [dice-ce]"""
    deep_supervision: Annotated[str | None, _p(STEPS)] = None
    """Number of supervised outputs, or their weights from full to coarsest, such as 0.5,0.3,0.2 [one]"""
    learning_rate: Annotated[float | None, _p(STEPS)] = None
    """At the start; it falls to 0 [0.001]"""
    weight_decay: Annotated[float | None, _p(STEPS)] = None
    """[0.0001]"""
    optimiser: Annotated[str | None, _p(STEPS)] = None
    """adamw or sgd [adamw]"""

    patch: Annotated[str | None, _p(DATA)] = None
    """What the network sees at once, such as 128,128 [fitted to the data]"""
    patch_voxels: Annotated[int | None, _p(DATA)] = None
    """Most voxels of a patch that is fitted [65536]"""
    spacing: Annotated[str | None, _p(DATA)] = None
    """mm per voxel, such as 1,1,3; native never resamples [auto: the median where it varies]"""
    normalise: Annotated[str | None, _p(DATA)] = None
    """auto, zscore, global, ct or none [auto]"""
    foreground: Annotated[float | None, _p(DATA)] = None
    """Share of patches that are centred on a structure [0.33]"""
    augment: Annotated[str | None, _p(DATA)] = None
    """none, light or full [light]"""
    fold: Annotated[int | None, _p(DATA)] = None
    """Which part of the cases judges; -1 trains on all [0]"""
    folds: Annotated[int | None, _p(DATA)] = None
    """Parts, where the data set has no splits of its own [5]"""

    precision: Annotated[str | None, _p(WORK)] = None
    """no, bf16 or fp16: mixed precision [no]"""
    cache: Annotated[float | None, _p(WORK)] = None
    """GiB of images that stay in memory [2]"""


def train(
    data: str | None = None,
    /,
    *,
    task: str = "segment",
    preset: str | None = None,
    config: str | None = None,
    settings: TrainFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Train a segmentation network from images and masks, in 2-D or 3-D.

    Parameters
    ----------
    data
        A folder with images/ and masks/, or a raw folder of nnU-Net. Check it first: fewer doctor DATA
    task
        segment
    preset
        Settings with a name. See: fewer list train-presets
    config
        A TOML file of settings; it may also give data and preset. The config.toml of a run is one.
    """
    from fewer.cli.config import resolve_as
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.cli.work import command_line
    from fewer.tasks import open_task
    from fewer.tasks.segment.settings import TrainSettings

    shared = shared or Shared()
    chosen, inputs = resolve_as(
        TrainSettings, given(settings, shared), preset, config, folder="segment", names=("data", "task")
    )
    data = data or inputs.get("data")
    doing = open_task(inputs.get("task", task))
    if data is None:
        raise FewerError(
            "which data? give a folder with images/ and masks/, for example: fewer train lesions/ --out run"
        )
    out = shared.out or "run"
    if shared.dry_run:
        from fewer.tasks.segment.training import plan_training

        lines = plan_training(data, chosen).lines()
        if shared.json:
            as_json({"dry_run": True, "data": data, "out": out, "settings": chosen.model_dump(), "would": lines})
        else:
            print("dry run, nothing is written:", *lines, f"out {out}", sep="\n  ")
        return 0
    run = doing.train(
        data,
        out=out,
        settings=chosen,
        overwrite=shared.overwrite,
        resume=shared.resume,
        progress=terminal_progress(),
        tell=None if shared.json else lambda line: print(line, file=sys.stderr, flush=True),
        command=command_line(),
    )
    if shared.json:
        found = run.evaluation.to_dict() if run.evaluation else None
        as_json({"folder": out, "best_step": run.best_step, "history": run.history, "evaluation": found})
        return 0
    if run.evaluation is not None:
        show_evaluation(run.evaluation)
    print(f"report  {Path(out) / 'report.html'}", f"next    fewer predict {out} IMAGES --out masks", sep="\n")
    return 0


def show_evaluation(result: Any) -> None:
    """Print the table of an evaluation, in columns that fit the terminal."""
    from rich.table import Table

    from fewer.cli.show import say

    head, rows = result.rows()
    if len(rows) <= 4:  # few structures: one column each, so that nothing is squeezed
        head, *rows = [list(column) for column in zip(head, *rows, strict=True)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    say(table)
    if result.about_missing:
        print(result.about_missing)
    wrong = [score for score in result.worst if score.status != "found"]
    for score in wrong[:5]:
        print(f"{score.status}: {score.structure} in {score.case}")
    if len(wrong) > 5:
        print(f"and {len(wrong) - 5} more missed or spurious")
