"""What a training has done: its state between two steps, and the numbers of every validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from fewer.core.files import atomic_write_text

if TYPE_CHECKING:
    from fewer.reports.page import Chart  # drawing is slow to import, and most trainings draw nothing

__all__ = ["Fit", "History", "steps_done"]


class History(list[dict[str, float]]):
    """One entry per validation: ``step``, mean losses since the one before, and scores.

    It is a plain list of dictionaries that can also write itself down.

    Examples
    --------
    >>> history = History([{"step": 1.0, "loss": 0.5}, {"step": 2.0, "loss": 0.25, "score": 0.9}])
    >>> print(history.to_csv().strip())
    step,loss,score
    1,0.5,
    2,0.25,0.9
    >>> [chart.title for chart in history.charts()]
    ['loss', 'score']
    """

    def columns(self) -> list[str]:
        """Names of all numbers, in the order in which they first appear."""
        return list(dict.fromkeys(name for entry in self for name in entry))

    def to_csv(self) -> str:
        """A table with one row per entry; a number that an entry lacks is left empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns(), restval="", lineterminator="\n")
        writer.writeheader()
        whole = float.is_integer
        writer.writerows(
            {name: int(value) if whole(value) else value for name, value in entry.items()} for entry in self
        )
        return text.getvalue()

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_csv` to a file.

        Raises
        ------
        FewerError
            When the file cannot be written.
        """
        atomic_write_text(path, self.to_csv())

    def save_plot(self, path: str | Path) -> None:
        """Draw every number against the step into an SVG file that stands alone.

        Raises
        ------
        FewerError
            When the file cannot be written.
        """
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        charts = self.charts()
        figure = Figure(figsize=(7, 2.4 * max(1, len(charts))), layout="constrained")
        panels = figure.subplots(max(1, len(charts)), 1, sharex=True, squeeze=False)[:, 0]
        for axes, chart in zip(panels, charts, strict=False):
            axes.plot(chart.series[0].x, chart.series[0].y, marker="o", markersize=3)
            axes.set_ylabel(chart.y)
            axes.grid(alpha=0.3)
        panels[-1].set_xlabel("step")
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
        atomic_write_text(path, text.getvalue())

    def charts(self) -> list[Chart]:
        """A line chart of every number against the step, for a page of :mod:`fewer.reports.page`."""
        from fewer.reports.page import Chart, Series

        found = []
        for name in self.columns():
            if name in ("step", "seconds"):
                continue
            points = [(entry["step"], entry[name]) for entry in self if name in entry]
            series = Series(label=name, x=[x for x, _ in points], y=[y for _, y in points])
            found.append(Chart(title=name, x="step", y=name, series=[series]))
        return found


def steps_done(history: Sequence[Mapping[str, float]]) -> int:
    """Steps of a finished training, which a time or patience may have ended earlier than its settings say.

    Examples
    --------
    >>> steps_done([{"step": 50.0}, {"step": 80.0}]), steps_done([])
    (80, 0)
    """
    return int(history[-1]["step"]) if history else 0


@dataclass
class Fit:
    """How far a training has come.

    Attributes
    ----------
    step
        Steps finished.
    history
        One entry per validation; see :class:`History`.
    times
        Seconds spent up to each entry of the history. They differ from run to run, so they stand apart.
    seconds
        Time spent so far, in all processes that had a part in it.
    began
        Of these seconds, what had passed before the first step.
    best_score, best_step, best
        Of the best validation so far, and the state of the model then.
    better
        Whether the ``higher`` or the ``lower`` score is better.
    part
        Share of the schedule that was over when the latest step began, 0 to 1.
    stopped
        Why it ended: ``schedule``, ``patience``, or empty while it goes on.
    facts
        What the caller or a callback wants to find again after an interruption, as JSON values.
    name
        Of the training: ``train``, or that of its stage where a verb trains several times.
    """

    step: int = 0
    history: History = field(default_factory=History)
    best_score: float | None = None
    best_step: int = 0
    best: dict[str, Tensor] | None = None
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    began: float = 0.0
    better: Literal["higher", "lower"] = "higher"
    part: float = 0.0
    stopped: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def note(self, model: nn.Module, score: float | None = None, others: Mapping[str, float] | None = None) -> bool:
        """Write a validation down, and keep the model's state if there was no better one.

        Of equally good states the later one counts where a higher score is better, since it has seen more; and the
        earlier one where a lower error is better, so that a model stays as it was if nothing improved it.

        Returns
        -------
        bool
            Whether this state is the best so far.
        """
        entry = {"step": float(self.step)} | {name: float(value) for name, value in (others or {}).items()}
        self.times.append(self.seconds)
        self.history.append(entry)
        if score is None:
            return False
        entry["score"] = score
        best = self.best_score
        is_best = best is None or (score >= best if self.better == "higher" else score < best)
        if is_best and score == score:  # NaN is never the best
            self.best_score, self.best_step = score, self.step
            self.best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            return True
        return False

    @property
    def improved(self) -> bool:
        """Whether a later state was better than the first one that was judged."""
        scores = [entry["score"] for entry in self.history if "score" in entry]
        if not scores or self.best_score is None:
            return False
        return self.best_score > scores[0] if self.better == "higher" else self.best_score < scores[0]

    def load_best(self, model: nn.Module) -> None:
        """Put the best state into the model; without one the model stays as it is."""
        if self.best is not None:
            model.load_state_dict(self.best)
