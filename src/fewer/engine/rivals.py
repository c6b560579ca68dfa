"""Whole methods under the same budget: what a preset would have made of this model, these images and these options."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor, nn

from fewer.core.budget import Budget
from fewer.core.option import Option
from fewer.engine.apply import apply_options
from fewer.engine.as_used import input_rounding
from fewer.engine.assembly import Assembly
from fewer.engine.contest import decide
from fewer.engine.plan import choose
from fewer.engine.prepare import prepared_for
from fewer.engine.sense import resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.presets import preset_names

__all__ = ["preset_of", "rival_model", "rival_settings", "same_method"]

# what makes a method: how distortion is measured, what is cut inside a layer, how it is repaired and how the plan is
# made
_METHOD = (
    "estimator",
    "reduction",
    "compensation",
    "score",
    "damping",
    "correction",
    "allocator",
    "power",
    "schedule",
    "rounds",
    "reorder",
    "smooth",
)
_PLANNED = ("estimator", "allocator")  # how a plan is made, and from how much measuring


def rival_settings(name: str, settings: Settings) -> Settings:
    """The method of a preset on the data, the device and the options of a run.

    Examples
    --------
    >>> rival_settings("default", Settings(pattern="block:16x16", score="magnitude")).score
    'obs'
    """
    method = Settings.from_preset(name)
    return settings.model_copy(update={"search": 0, **{n: getattr(method, n) for n in _METHOD}})


def same_method(a: Settings, b: Settings) -> bool:
    """Whether two settings differ in nothing that makes a method.

    Examples
    --------
    >>> same_method(Settings(), Settings(seed=3)), same_method(Settings(), Settings(power=1.0))
    (True, False)
    """
    return all(getattr(a, n) == getattr(b, n) for n in _METHOD)


def preset_of(settings: Settings) -> str | None:
    """The preset whose method some settings have, where that cuts or repairs in another way than ours.

    How a plan is made, and from how much measuring, is a matter of size and time: a preset such as ``demo`` changes
    nothing else, and is no method of its own.

    Examples
    --------
    >>> preset_of(Settings.from_preset("lpvit", seed=3)), preset_of(Settings())
    ('lpvit', None)
    >>> preset_of(Settings(allocator="dp", estimator="taylor"))
    """
    ours = Settings()
    if all(getattr(settings, n) == getattr(ours, n) for n in _METHOD if n not in _PLANNED):
        return None
    return next((name for name in preset_names() if same_method(Settings.from_preset(name), settings)), None)


def rival_model(
    work: Work, budgets: Sequence[Budget], scratch: Path | None, title: str
) -> tuple[nn.Module, dict[str, Tensor], dict[str, Option]]:
    """Sense, plan and apply with other settings; the model, its masks and what was chosen for each layer.

    Parameters
    ----------
    work
        Model and images of the run with the settings of the rival; see :func:`rival_settings`.
    budgets
        All that must hold.
    scratch
        Folder for what is sensed, so that an interrupted run can go on.
    title
        Of the stage that is shown.
    """
    work = work.on(prepared_for(work.prepared, work.settings))
    prepared, settings = work.prepared, resolved(work.prepared, work.settings)
    work = work.under(settings)
    with ExitStack() as stack:
        if scratch is None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewer-")))
        store = scratch / f"rival-{settings.score}-{settings.compensation}"
        store.mkdir(exist_ok=True)
        sensed = sense_curves(work, ledger_path=store / "ledger.jsonl", store=store)
        assembly = Assembly.of(
            prepared.model, sensed.curves, store, prepared.example, prepared.forward, input_rounding(work)
        )
        allocator, _ = decide(work, sensed, assembly, budgets)
    found = choose(sensed.curves, budgets, allocator, power=settings.power)
    chosen = sensed.chosen(found.choice)
    model, masks = apply_options(work, sensed.options, chosen, title=title)
    return model, masks, chosen
