"""``fewer demo low-bit``: one network trained on real digits in fewer and fewer bits, and a page that compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress
from fewer.data.digits import real_digits
from fewer.models.artefact import WEIGHTS
from fewer.reports.page import Chart, Page, Section, Series, Table, Tile
from fewer.tasks.classify.metrics import wilson
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.trained import TrainedRun
from fewer.tasks.classify.training import train
from fewer.tasks.folders import make_folder

__all__ = ["ROWS", "LowBitDemo", "demo"]

ROWS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "w4a4": {"bits": "w4a4"},
    "w4a4g4, nearest": {"bits": "w4a4g4", "gradients": "nearest"},
    "w4a4g4": {"bits": "w4a4g4"},
    "w4a4g2, nearest": {"bits": "w4a4g2", "gradients": "nearest"},
    "w4a4g2": {"bits": "w4a4g2"},
}
"""Rows of the page: what is in few bits, and how gradients are rounded where it is not the default."""


@dataclass(frozen=True, repr=False)
class LowBitDemo(Told):
    """What the demo made.

    Attributes
    ----------
    page
        The page that compares.
    accuracy
        On digits that did not train, for each row.
    """

    page: Path
    accuracy: dict[str, float]

    def lines(self) -> list[str]:
        """The accuracies, and where the page is."""
        told = "; ".join(f"{name} {value:.1%}" for name, value in self.accuracy.items())
        return [f"digits right: {told}", f"see {self.page}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "accuracy": self.accuracy}


def demo(
    out: str | Path, *, steps: int = 300, seed: int = 0, progress: Progress | None = None, command: str = ""
) -> LowBitDemo:
    """Train a small network on 1,297 real digits, once for each row, and judge it on 500 others; offline.

    Low-bit arithmetic is simulated in floating point. Runs of an earlier demo in the same folder are replaced.
    """
    root = make_folder(out)
    data = make_folder(root / "digits")
    for part, (images, labels) in zip(("train", "test"), real_digits(seed), strict=True):
        np.savez(data / f"{part}.npz", images=np.rint(images[:, 0] * 255).astype(np.uint8), label=labels)
    runs: dict[str, TrainedRun] = {}
    for name, chosen in ROWS.items():
        settings = TrainSettings(
            network="resnet8", input_size=8, augment="none", steps=steps, every=max(1, steps // 6), batch=32, seed=seed,
            optimiser="sgd", momentum=0.9, learning_rate=0.05, rate_warm_up=0.1, weight_decay=5e-4, **chosen,
        )  # fmt: skip
        folder = root / name.replace(", ", "-")
        runs[name] = train(data, out=folder, settings=settings, overwrite=True, progress=progress, command=command)
    made = _page(runs, command)
    atomic_write_text(root / "demo.json", made.to_json())  # the page says that it stands there
    page = atomic_write_text(root / "demo.html", made.to_html())
    return LowBitDemo(page, {name: _accuracy(run) for name, run in runs.items()})


def _accuracy(run: TrainedRun) -> float:
    assert run.evaluation is not None
    return run.evaluation.top1


def _page(runs: Mapping[str, TrainedRun], command: str) -> Page:
    rows = []
    for name, run in runs.items():
        assert run.evaluation is not None and run.folder is not None
        low, high = wilson(round(_accuracy(run) * len(run.evaluation)), len(run.evaluation))
        rows.append(
            [
                name,
                f"{_accuracy(run):.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{(run.folder / WEIGHTS).stat().st_size / 1e3:.0f}",
            ]
        )
    judged = {name: [e for e in run.history if "score" in e] for name, run in runs.items()}
    learning = Chart(
        title="Accuracy of digits that judge",
        x="step",
        y="accuracy",
        series=[Series(label=n, x=[e["step"] for e in h], y=[e["score"] for e in h]) for n, h in judged.items()],
    )
    first, last = _accuracy(runs["fp32"]), _accuracy(runs["w4a4g4"])
    sentence = (
        f"Weights, inputs of layers and gradients in 4 bits: {last:.1%} of real digits right, {first:.1%} in fp32."
    )
    return Page(
        title="One network, trained in fewer and fewer bits",
        badge="Trained",
        sentence=sentence,
        tiles=[Tile(name=f"accuracy, {name}", value=f"{_accuracy(run):.3f}") for name, run in runs.items()],
        sections=[
            Section(
                name="scores",
                title="Accuracy",
                tables=[Table(head=["training", "accuracy", "95 % interval", "stored, kB"], rows=rows)],
                charts=[learning, *_off(runs)],
                words=[
                    "w, a and g are the bits of weights, inputs of layers and gradients; the first and the last layer "
                    "have 8. Gradients are rounded up or down at random so that their mean is right, or to the nearest "
                    "where that is said: then most small ones become 0.",
                ],
            ),
            Section(
                name="limits",
                title="What this does not show",
                points=[
                    "One seed and 500 digits: differences within the intervals say nothing.",
                    "The arithmetic is simulated in floating point; no time was gained by it.",
                ],
            ),
            Section(name="reproduce", title="How to get these numbers again", command=command),
        ],
        data={name: run.to_dict() for name, run in runs.items()},
    )


def _off(runs: Mapping[str, TrainedRun]) -> list[Chart]:
    """How well gradients in few bits agree with those in fp32, mean over layers."""
    lines = []
    for name, run in runs.items():
        found: dict[float, list[float]] = {}
        for entry in run.few_bits.get("gradients", []):
            found.setdefault(float(entry["step"]), []).append(float(entry.get("cosine", np.nan)))
        if found:
            lines.append(Series(label=name, x=list(found), y=[float(np.nanmean(v)) for v in found.values()]))
    title = "Cosine of gradients of weights with those in fp32, mean over layers"
    return [Chart(title=title, x="step", y="cosine", series=lines)] if lines else []
