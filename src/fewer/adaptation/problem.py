"""What a method is given: prepared images of both domains, and what the task knows of its network, loss and patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewer.core.progress import SILENT, Progress, Under
from fewer.training.checkpoint import Checkpoint
from fewer.training.history import Fit

__all__ = ["Adapted", "Batches", "Member", "Pair", "Problem", "Work"]

Pair = tuple[Tensor, Tensor | None]
"""Image float32 ``(channels, *space)``, on the scale of the network's input, and class indices uint8 ``(*space)``."""

Batches = Callable[[int], tuple[Tensor, Tensor]]
"""From a step to images ``(batch, channels, *patch)`` and class indices ``(batch, 1, *patch)``."""


@dataclass(eq=False)
class Problem:
    """An adaptation to be solved. The task that poses it hands in everything that it knows.

    Attributes
    ----------
    network
        The student before its first step, seeded.
    dims
        2 or 3.
    classes
        Names, the background first.
    source
        Labelled source images.
    held
        Labelled source images that never train; they take part in the choice of the weights.
    target
        Target images.
    sampler
        ``sampler(pairs, stream)``: batches of patches; streams draw apart from each other.
    loss
        Of outputs, full resolution first, and class indices ``(batch, 1, *patch)``, full resolution only or over all.
    scales
        The outputs of a network as a list, full resolution first.
    weights
        Of the outputs, adding up to 1; one number where there is one output.
    logits
        ``logits(model, image)``: scores ``(classes, *space)`` of a whole image.
    unlabelled
        Source images whose masks are not used.
    answers
        Labelled target images, for the oracle of a benchmark alone; empty otherwise.
    taps
        Names of the network's last and penultimate decoder stages; empty where they are not known.
    mirror
        Axis of space along which the sampler mirrors images, so that mirror images have mirrored answers, or None.
    measured
        Whether voxels are as long in one image as in another. Then a structure has as many of them however large the
        image around it is; else sizes are compared as shares of the image.
    """

    network: nn.Module
    dims: int
    classes: tuple[str, ...]
    source: Sequence[Pair]
    held: Sequence[Pair]
    target: Sequence[Tensor]
    sampler: Callable[[Sequence[Pair], int], Batches]
    loss: Callable[[Sequence[Tensor], Tensor, Sequence[float]], Tensor]
    scales: Callable[[Any], list[Tensor]]
    weights: tuple[float, ...]
    logits: Callable[[nn.Module, Tensor], Tensor]
    unlabelled: Sequence[Tensor] = ()
    answers: Sequence[Pair] = ()
    taps: tuple[str, ...] = ()
    mirror: int | None = None
    measured: bool = False

    @property
    def channels(self) -> int:
        """Of an image."""
        return len(self.source[0][0])


@dataclass(eq=False)
class Work:
    """How the work is done.

    Attributes
    ----------
    scratch
        Folder of checkpoints, one per stage; None keeps none. Every stage is deterministic, so that going through all
        of them again with their checkpoints ends where an uninterrupted run ends.
    key
        Names the adaptation; checkpoints of another one are refused.
    tell
        Is given what a user should know.
    prefix
        Stands before the names of checkpoints, where several networks are trained.
    """

    scratch: Path | None = None
    key: str = ""
    accelerator: Any = None
    progress: Progress = SILENT
    tell: Callable[[str], None] = lambda line: None
    notes: list[str] = field(default_factory=list)
    prefix: str = ""

    def under(self, name: str) -> Work:
        """The same work for one of several networks: its stages and checkpoints have its name, notes are shared."""
        return replace(self, progress=Under(self.progress, name), prefix=f"{self.prefix}{name}-")

    def say(self, line: str) -> None:
        """Tell a user now, and keep it for the report."""
        self.notes.append(line)
        self.tell(line)

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Of a stage, where there is a folder to keep it in."""
        return Checkpoint.within(self.scratch, self.key, self.prefix + name)


@dataclass(eq=False)
class Member:
    """One of several networks among which a method chooses.

    Attributes
    ----------
    name
        Of the method that trained it.
    steps
        That it has learned for, those of a stage that it shares with others included.
    signs
        What is known of it without a target label; ``trust`` chooses.
    kept
        Whether it is the one that the method returns.
    """

    name: str
    model: nn.Module
    steps: int
    signs: dict[str, float]
    kept: bool = False


@dataclass(eq=False)
class Adapted:
    """What a method returns.

    Attributes
    ----------
    model
        The network with the chosen weights.
    stages
        Trainings by name, in their order.
    translated
        Source images in the look of the target, where there is a translator.
    translator
        From target to source look, where the model needs one at test time; with the source that rebuilds it.
    checks
        Facts of the translator's safety.
    members
        Networks among which was chosen, as they were then; empty where there is one.
    steps_after_choice
        For which the kept one went on.
    """

    model: nn.Module
    stages: dict[str, Fit] = field(default_factory=dict)
    translated: Sequence[Tensor] = ()
    translator: nn.Module | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    steps_after_choice: int = 0
