"""The default: one network of the source, one of any contrast, and what they can be believed on labels the target.

Where source and target look alike, a network that trains on the source as it is knows most of the target, and random
contrasts only blur what it knows. Where they do not, it knows nothing, and random contrasts are all there is. Nobody
can say beforehand which case it is. So both are trained, one after the other, and
:func:`~fewer.adaptation.choice.trust` says whose answers label the target: those of one, or the mean of both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewer.adaptation.baselines import sometimes
from fewer.adaptation.choice import kinship, trust
from fewer.adaptation.learn import Lesson, Stream, learn
from fewer.adaptation.look import look_of, paint_like
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style, chain, degrade, one_of, random_contrast, random_curve, synthesise
from fewer.adaptation.teachers import label_and_learn

__all__ = ["contrasts", "ours"]

PARTS = (3, 3, 2)
"""Steps on the source as it is, on changed contrasts, and with pseudo-labels, in proportion."""
SHORT = 250
"""Steps below which the stage on the source as it is teaches too little to be worth them; then there is none."""
KIN = 0.8
"""Kinship of the target to the source from which a network that only saw the source as it is may label the target."""
EASE = 0.3
"""Share of a training over which random contrasts come in where no stage on the source as it is goes before."""
BELIEVED = 0.85
"""Share of the larger trust that the other network must have to label the target too."""

KEPT = 0.95
"""Share of the trust before pseudo-labels that must be left after them."""


@dataclass(frozen=True)
class Earlier:
    """The network of the source as it is, and the kinship of source and target by its answers."""

    network: nn.Module
    near: float


class _Mean(nn.Module):
    """Mean of the class scores of several networks."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).mean(0)


def ours(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """The source as it is, then random contrasts, then filtered pseudo-labels of the target, used in two ways.

    The pseudo-labelled images train. And they tell the grey levels of the target's structures, which a part of the
    source images gets from then on, see :func:`~fewer.adaptation.look.paint_like`.

    A mean teacher comes in where a weight is given (``--consistency 3``): the student must give the answer of the
    teacher, who saw the target image as it is, for the image in another contrast. It doubles the time and is off: in
    the one run that compared (T1 to FLAIR, 800 steps, one seed) Dice was 0.55 with it and 0.59 without.
    """
    steps: int = getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    style = contrasts(settings)
    labels = settings.uses("pseudo-labels")
    long = steps * PARTS[0] // sum(PARTS) >= SHORT
    arms = settings.uses("arms") and style is not None and long
    parts = [PARTS[0] if arms else 0, PARTS[1] if arms else PARTS[0] + PARTS[1], PARTS[2] if labels else 0]
    plain_steps, last = steps * parts[0] // sum(parts), steps * parts[2] // sum(parts)
    model, stages, first = problem.network, {}, None
    if arms:
        plain = Lesson([Stream(problem.source)], problem.held)
        stages["plain"] = learn(problem, settings, work, plain, "plain", model, steps=max(1, plain_steps))
        first = Earlier(copy.deepcopy(model), kinship(problem, model))
    changed = _changed(problem, settings, style, 0.0 if arms else EASE)
    name = "contrasts" if arms else "train"
    stages[name] = learn(problem, settings, work, changed, name, model, steps=max(1, steps - plain_steps - last))
    if not labels:
        return Adapted(model, stages)
    teacher = _believed(problem, work, first, model)
    before = copy.deepcopy(model)

    def later(found: Sequence[Pair]) -> Style | None:
        looks: list[tuple[float, Style | None]] = [(1.0, None)]
        if style is not None:
            looks.append((1.0, _always(settings)))
        if settings.uses("target-look"):
            looks.append((1.0, chain([paint_like(look_of(found, len(problem.classes))), degrade])))
        return one_of(looks)

    mild = sometimes(degrade, 0.5)
    stages |= label_and_learn(problem, settings, work, changed, max(1, last), teacher=teacher, style=mild, later=later)
    _keep_if_believed(problem, work, before, model)
    return Adapted(model, stages)


def _changed(problem: Problem, settings: AdaptationSettings, style: Style | None, ease: float) -> Lesson:
    """The source in random contrasts, and a mean teacher on the target where a weight is given."""
    weight = settings.consistency or 0.0
    on = settings.uses("consistency") and weight > 0
    return Lesson(
        [Stream(problem.source, style)],
        problem.held,
        target=problem.target if on else (),
        consistency=weight if on else 0.0,
        strong=style,
        ease=ease,
    )


def _believed(problem: Problem, work: Work, earlier: Earlier | None, model: nn.Module) -> nn.Module:
    """Who labels the target: the network that is trusted most, or the mean of both where they are nearly level.

    A network of the source as it is has no say where the target is far. The model gets its weights where it alone is
    believed.
    """
    if earlier is None:
        return model
    if earlier.near < KIN:
        work.say(
            f"the target is far from the source (kinship {earlier.near:.2f}): the network of random contrasts labels it"
        )
        return model
    networks = [earlier.network, model]
    found = [trust(problem, network) for network in networks]
    chosen = [network for network, value in zip(networks, found, strict=True) if value >= BELIEVED * max(found)]
    told = " and ".join(f"{value:.2f}" for value in found)
    who = "both" if len(chosen) > 1 else "the second" if chosen[0] is model else "the first"
    work.say(f"trust in the network of the source and in that of random contrasts: {told}; {who} labels the target")
    if len(chosen) > 1:
        return _Mean([copy.deepcopy(network) for network in chosen]).eval()
    if chosen[0] is not model:
        model.load_state_dict(chosen[0].state_dict())
    return model


def _keep_if_believed(problem: Problem, work: Work, before: nn.Module, model: nn.Module) -> None:
    """Take pseudo-labels back where they have made answers clearly less believable, as when a structure is lost."""
    was, now = trust(problem, before), trust(problem, model)
    if now < KEPT * was:
        work.say(f"pseudo-labels lowered the trust from {was:.2f} to {now:.2f}: the weights before them are kept")
        model.load_state_dict(before.state_dict())


def contrasts(settings: AdaptationSettings) -> Style | None:
    """What changes the contrast of a share of the images, with the modules that are switched on."""
    always = _always(settings)
    return None if always is None else one_of([(1 - settings.curve_share, None), (settings.curve_share, always)])


def _always(settings: AdaptationSettings) -> Style | None:
    curve, paint = settings.uses("curves"), settings.uses("structures")
    if not (curve or paint):
        return None
    # one part curves, and one each of shifted structures and of painting from the mask
    styles: list[tuple[float, Style | None]] = [(1.0, random_curve)] * curve
    styles += [(1.0, random_contrast), (1.0, synthesise)] * paint
    return chain([one_of(styles), degrade])
