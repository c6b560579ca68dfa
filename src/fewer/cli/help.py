"""What the help of a verb shows: the options that most people need and examples; ``--help-all`` shows the rest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = [
    "ALL", "COMMON", "EXAMPLES", "GROUPS", "SYNONYMS", "Drawn", "closing_words", "full_help", "group_of",
    "plain_help", "right_name",
]  # fmt: skip

ALL = "--help-all"

GROUPS = {
    "Start here": ("demo", "info", "list"),
    "Make a model cheaper": (
        "compress", "recover", "report", "bench", "export", "sense", "plan", "apply", "profile",
    ),
    "Get a model from few labels": ("select", "doctor", "train", "eval", "predict", "adapt"),
    "People, and privacy": ("private", "study", "tune"),
}  # fmt: skip
"""Headings of ``fewer --help``, and the verbs under each, in the order in which a newcomer meets them."""

_ALWAYS = ("--out", "--dry-run", "--overwrite", "--resume")
_WHAT = ("--pattern", "--tokens", "--pixels")
_TRAINING = ("--steps", "--time", "--batch", "--learning-rate")

COMMON = {
    "compress": ("--images", "--budget", "--preset", "--labelled", "--recover", *_WHAT, *_ALWAYS),
    "sense": ("--images", "--preset", "--pattern", "--tokens", "--measure", *_ALWAYS),
    "demo": ("--budget", "--out", "--overwrite", "--resume"),
    "train": (
        "--task",
        "--preset",
        "--network",
        "--size",
        "--input-size",
        "--patch",
        "--encoder",
        *_TRAINING,
        *_ALWAYS,
    ),
    "adapt": ("--method", "--test", "--network", "--source-labels", *_TRAINING, *_ALWAYS),
    "tune": ("--language", "--encoder", "--images", "--lora", *_TRAINING, *_ALWAYS),
}
"""Options that the short help shows, by verb; verbs that are not here have few enough to show all."""

EXAMPLES = {
    "compress": (
        "fewer compress fewer/mobilenet-v2 --images photos/ --budget weights=50%",
        "fewer compress timm/resnet50 --images photos/ --budget size=8MB --out small/",
        "fewer compress net.py:make --images photos/ --budget latency=0.3x",
    ),
    "sense": ("fewer sense fewer/mobilenet-v2 --images photos/ --out run/",),
    "plan": ("fewer plan run/ --budget size=4MB",),
    "apply": ("fewer apply run/ --plan plan.json --out smaller/",),
    "recover": ("fewer recover run/ --time 10min",),
    "bench": ("fewer bench run/ --vs onnxruntime,openvino",),
    "export": ("fewer export run/ --to onnx",),
    "demo": ("fewer demo", "fewer demo fewer/mobilenet-v2 --budget size=4MB", "fewer demo gait", "fewer demo select"),
    "select": (
        "fewer select photos/ --budget labels=100 --out queue/",
        "fewer select --continue --out queue/ --labels labels.csv --budget labels=50",
    ),
    "doctor": (
        "fewer doctor data/ --task segment",
        "fewer doctor data/ --page checked.html",
        "fewer doctor data/ --fix --out repaired/",
    ),
    "train": ("fewer train photos-by-class/ --task classify --steps 2000", "fewer train scans/ --task segment"),
    "eval": ("fewer eval run/ data/", "fewer eval predictions/ data/ --task segment"),
    "predict": ("fewer predict run/ images/ --out masks/",),
    "adapt": ("fewer adapt t1/ flair/ --out run/", "fewer adapt t1/ flair/ --test flair-labelled/ --out run/"),
    "report": ("fewer report run/",),
    "profile": ("fewer profile fewer/mobilenet-v2", "fewer profile fewer/mobilenet-v2 --out laptop.json"),
    "private": (
        "fewer private compile fewer/mnist-cnn --images digits/ --out circuit/",
        "fewer private keys circuit/public.json --out keys/",
        "fewer private serve circuit/",
        "fewer private query keys/ digits/3.png",
    ),
    "study": ("fewer study new asked/ --images photos/", "fewer study serve asked/", "fewer study export asked/"),
    "tune": ("fewer tune records.json --images photos/ --out tuned/",),
    "info": ("fewer info fewer/mobilenet-v2", "fewer info run/"),
    "list": ("fewer list models", "fewer list tasks", "fewer list demos"),
}
"""Commands at the end of a verb's help. They are checked like those of the documentation."""


SYNONYMS = {
    "--time": ("--seconds", "--minutes", "--duration", "--max-time"),
    "--learning-rate": ("--rate", "--lr"),
    "--batch": ("--batch-size", "--bs", "--samples-per-step"),
    "--deploy-batch": ("--images-per-call",),
    "--threads": ("--num-threads", "--thread"),
    "--workers": ("--jobs", "--num-workers"),
    "--out": ("--output", "--output-dir", "--save"),
    "--overwrite": ("--force", "--replace"),
    "--quiet": ("--silent",),
    "--optimiser": ("--optimizer",),
    "--validate-share": ("--holdout", "--val-share"),
    "--all-data": ("--all-cases", "--all-people", "--all-scans", "--all"),
    "--input-size": ("--side", "--resolution", "--image-size"),
    "--pattern": ("--patterns",),
    "--images": ("--photos", "--pictures-folder"),
    "--checkpoint": ("--weights",),
    "--network": ("--model", "--architecture", "--arch", "--net", "--backbone"),
    "--features": ("--model", "--embedding", "--embeddings"),
    "--language": ("--model", "--llm"),
    "--steps": ("--iterations", "--max-steps"),
    "--every": ("--eval-every", "--validate-every"),
}
"""Names by which people know a flag from elsewhere. No verb has them, and the hint gives the right one."""


def right_name(flag: str, known: Sequence[str]) -> str | None:
    """The flag of a verb that somebody meant by a name from elsewhere.

    Examples
    --------
    >>> right_name("--lr", ["--learning-rate"]), right_name("--lr", ["--out"])
    ('--learning-rate', None)
    """
    return next((name for name, others in SYNONYMS.items() if flag in others and name in known), None)


class Drawn:
    """Draws the help of a verb: each description as one paragraph, and only the options that most people need.

    Parameters
    ----------
    names
        These options; by default all.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        from cyclopts.help import DefaultFormatter

        self.names = None if names is None else frozenset(names)
        self._draw = DefaultFormatter()

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """One panel of the help; nothing where no option of it is left."""
        from rich.text import Text

        shown = [e for e in panel.entries if self.names is None or not e.names or self.names & {*e.names}]
        for entry in shown:
            text = getattr(entry.description, "primary_renderable", None)
            if isinstance(text, Text):  # with the line ends of a docstring
                entry.description.primary_renderable = Text(" ".join(text.plain.split()))
        if shown:
            self._draw(console, options, panel.copy(entries=shown))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draw, name)  # usage and description are drawn as ever


def group_of(verb: str) -> str:
    """The heading that a verb stands under."""
    return next(heading for heading, verbs in GROUPS.items() if verb in verbs)


def full_help(words: Sequence[str]) -> bool:
    """Whether all options are asked for."""
    return ALL in words


def plain_help(words: Sequence[str]) -> list[str]:
    """The same words with the one option for help that the parser knows."""
    return ["--help" if word == ALL else word for word in words]


def closing_words(verb: str, words: Sequence[str]) -> str:
    """What stands under the options of a verb: examples, and where the other options are.

    Examples
    --------
    >>> print(closing_words("plan", []))
    Example
      fewer plan run/ --budget size=4MB
    """
    lines = []
    if found := EXAMPLES.get(verb, ()):
        lines += ["Example" if len(found) == 1 else "Examples", *(f"  {command}" for command in found)]
    if verb in COMMON and not full_help(words):
        task = next((f" --task {b}" for a, b in pairwise(words) if a == "--task"), "")
        lines += ["", f"All options: fewer {verb}{task} {ALL}"]
    return "\n".join(lines)
