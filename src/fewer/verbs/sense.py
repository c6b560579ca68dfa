"""Verbs that work on a run folder step by step: sense into it, apply a plan from it, write its report again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from fewer.core.curve import CurveSet
from fewer.core.display import Fact, Shown, counted
from fewer.core.errors import FewerError
from fewer.core.options import RunOptions, split_options
from fewer.core.progress import usual_progress
from fewer.core.run import RunFolder
from fewer.engine.choices import SenseOptions
from fewer.engine.prepare import prepare
from fewer.engine.run import Request
from fewer.engine.sense import resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work


@dataclass(frozen=True, eq=False, repr=False)
class SensedRun(Shown):
    """What :func:`sense` returns.

    Attributes
    ----------
    curves
        Cost and distortion of every option of every unit.
    matched
        Rows of the table of units: matched, skipped and why.
    facts
        Passes and seconds spent.
    folder
        Run folder.
    """

    curves: CurveSet
    matched: list[dict[str, str]]
    facts: dict[str, Any]
    folder: Path

    def shown(self) -> tuple[str, list[Fact]]:
        """What was sensed and where it is."""
        _, facts = self.curves.shown()
        left = sum(row["status"] != "matched" for row in self.matched)
        return f"Sensed {counted(len(self.curves.curves), 'layer')}", [
            ("left alone", counted(left, "layer")),
            *facts,
            ("saved", str(self.folder)),
        ]


def sense(
    model: Any,
    images: Any = None,
    *,
    out: str | Path,
    settings: Settings | None = None,
    **options: Unpack[SenseOptions],
) -> SensedRun:
    """Measure the distortion of every option of every unit and keep the curves; any budget can then be planned from
    them.

    Parameters
    ----------
    model, images, settings, **options
        As for :func:`fewer.compress`.
    out
        Run folder.

    Raises
    ------
    FewerError
        When the model or images cannot be used, or the folder cannot be written.

    Examples
    --------
    >>> import fewer
    >>> curves = fewer.sense("fewer/mobilenet-v2", "photos/", out="run/").curves  # doctest: +SKIP
    """
    own, named = split_options("sense", options, (*RunOptions.__annotations__, "forward"), Settings.model_fields)
    chosen, progress = (settings or Settings()).changed(named).for_metrics(()), own.get("progress") or usual_progress()
    if chosen.pixels == "on":
        raise FewerError(
            "how small images may be depends on the budget, so fewer compress chooses it; leave pixels out"
        )
    with RunFolder.create(out, overwrite=own.get("overwrite", False), resume=own.get("resume", False)) as run:
        run.write_config(Request(model, images, (), chosen).config())
        with progress.stage("match", None) as stage:
            prepared = prepare(model, images, chosen, own.get("forward"))
            chosen = resolved(prepared, chosen)
            stage.advance()
        sensed = sense_curves(Work(prepared, chosen, progress), ledger_path=run.scratch() / "ledger.jsonl")
        run.write_curves(sensed.curves)
        run.log("sensed", **sensed.facts)
        return SensedRun(sensed.curves, prepared.matched.table(), sensed.facts, run.home)
