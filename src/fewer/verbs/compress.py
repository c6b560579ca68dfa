"""Compress: match, sense, plan, apply and report in one go. This is the main job."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from fewer.core.budget import Budget, model_budgets
from fewer.core.options import RunOptions, split_options
from fewer.core.progress import usual_progress
from fewer.core.run import RunFolder
from fewer.engine.choices import CompressOptions
from fewer.engine.quality import QualityLike
from fewer.engine.run import CompressedRun, Request, run_compression, save_run
from fewer.engine.settings import Settings

OWN = (*RunOptions.__annotations__, "forward", "distance")
"""Options that are no settings."""


def compress(
    model: Any,
    images: Any = None,
    budget: str | Budget | Sequence[str | Budget] = "weights=50%",
    *,
    out: str | Path | None = None,
    quality: QualityLike = None,
    settings: Settings | None = None,
    **options: Unpack[CompressOptions],
) -> CompressedRun:
    """Make a model meet a budget, with the least change of its output.

    Parameters
    ----------
    model
        ``fewer/NAME``, ``timm/NAME``, ``hf/NAME``, ``path.py:function`` (runs the code of that file), or any
        ``nn.Module``. It is not changed.
    images
        Unlabelled inputs: a folder or list of image files, a tensor [N, ...], a dictionary or tuple of tensors with the
        samples first, a list or DataLoader of tensors, dictionaries or tuples, a list of arrays of different length,
        or :class:`~fewer.data.samples.Samples`.
    budget
        ``"weights=50%"``, ``"flops=0.5x"``, ``"size=8MB"``, ``"latency=0.4x"``, ``"latency=20ms"``, or several.
    out
        Run folder; everything stays in memory when None.
    quality
        How good a model is on labelled data: ``quality(model)`` gives numbers by name. It steers nothing; the report
        shows it before and after, and for every baseline. Of a model that a task trained, the folder of the data will
        do.
    settings
        All settings in one object; see :class:`Settings`.
    **options
        Single settings by name, such as ``pattern="block:16x4"`` or ``seed=3``, which go over ``settings``. And how
        the work is done:

        ``overwrite``, ``resume``: what to do with an existing run folder, start anew, or go on where it was
        interrupted. ``progress`` shows what is going on; see :mod:`fewer.core.progress`. ``command`` is the command
        line, for the report.

        ``forward(model, batch)`` is for models that are not called with a tensor, ``*tuple`` or ``**dictionary``;
        samples of different length come to it as a list. ``distance`` says how a change of the model's output is
        measured, where its relative square is not what matters: a function that makes a
        :class:`~fewer.distortion.distance.Distance` of the dense outputs.

    Returns
    -------
    CompressedRun

    Raises
    ------
    FewerError
        When the input cannot be used or the budget cannot be met; the sentence says which, and what can be. Also for
        an option that is not known, with the nearest one.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> run = compress(net, torch.randn(32, 16), "weights=50%", additivity=0, baselines=())
    >>> sum(int(m.sum()) for m in run.masks.values()) <= (16 * 32 + 32 * 4) // 2
    True
    """
    own, named = split_options("compress", options, OWN, Settings.model_fields)
    overwrite, resume, command = own.get("overwrite", False), own.get("resume", False), own.get("command")
    progress = own.get("progress") or usual_progress()
    budgets = model_budgets(budget)
    chosen = (settings or Settings()).changed(named).for_metrics(b.metric for b in budgets)
    kept = out is not None
    request = Request(model, images, budgets, chosen, own.get("forward"), quality, own.get("distance"), command, kept)
    with ExitStack() as stack:
        run = stack.enter_context(RunFolder.create(out, overwrite=overwrite, resume=resume)) if out else None
        config = request.config()
        if run is not None:
            run.write_config(config)
            run.log("started", command=command or "")
            scratch = run.scratch()
        else:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewer-")))
        result = run_compression(request, scratch, progress)
        if run is not None:
            with progress.stage("save", None) as stage:
                with run.together():
                    save_run(run, result, config)
                stage.advance()
            run.log("finished", distortion=result.report.verdict.distortion)
            run.clear_scratch()
            result.folder = run.home
        return result
