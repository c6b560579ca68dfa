"""One network in three stages: the source as it is, random contrasts, what it can be believed on the target.

Where source and target look alike, most is learned from the source as it is, and random contrasts alone would blur it.
Where they do not, that teaches nothing about the target. So one network learns both, one after the other. It then
labels the target. The network of the first stage never does, however sure it is: one that was trained on bright nuclei
finds the bright gaps between dark ones, each time again and of about the right size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from fewer.adaptation.baselines import sometimes
from fewer.adaptation.choice import trust
from fewer.adaptation.learn import Lesson, Stream, learn
from fewer.adaptation.look import look_of, paint_like
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style, chain, degrade, one_of, random_contrast, random_curve, synthesise
from fewer.adaptation.teachers import label_and_learn
from fewer.training.history import Fit

__all__ = ["changes", "contrasts", "keep_if_believed", "label_and_vary", "vary_and_label"]

PARTS = (3, 3, 2)
"""Steps on the source as it is, on changed contrasts, and with pseudo-labels, in proportion."""
SHORT = 250
"""Steps below which the stage on the source as it is teaches too little to be worth them; then there is none."""
EASE = 0.3
"""Share of a training over which random contrasts come in where no stage on the source as it is goes before."""
KEPT = 0.95
"""Share of the trust before pseudo-labels that must be left after them."""


def contrasts(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """The source as it is, then random contrasts, then filtered pseudo-labels of the target, used in two ways.

    The pseudo-labelled images train. And they tell the grey levels of the target's structures, which a part of the
    source images gets from then on, see :func:`~fewer.adaptation.look.paint_like`.

    A mean teacher comes in where a weight is given (``--consistency 3``): the student must give the answer of the
    teacher, who saw the target image as it is, for the image in another contrast. It doubles the time and is off: in
    the one run that compared (T1 to FLAIR, 800 steps, one seed) Dice was 0.55 with it and 0.59 without.
    """
    steps: int = getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    labels = settings.uses("pseudo-labels")
    long = steps * PARTS[0] // sum(PARTS) >= SHORT
    warm = settings.uses("warm-start") and changes(settings) is not None and long
    parts = [PARTS[0] if warm else 0, PARTS[1] if warm else PARTS[0] + PARTS[1], PARTS[2] if labels else 0]
    plain_steps, last = steps * parts[0] // sum(parts), steps * parts[2] // sum(parts)
    stages = {}
    if warm:
        plain = Lesson([Stream(problem.source)], problem.held)
        stages["plain"] = learn(problem, settings, work, plain, "plain", problem.network, steps=max(1, plain_steps))
    middle = max(1, steps - plain_steps - last)
    stages |= vary_and_label(problem, settings, work, middle, last, warm=warm)
    return Adapted(problem.network, stages)


def vary_and_label(
    problem: Problem, settings: AdaptationSettings, work: Work, steps: int, last: int, *, warm: bool
) -> dict[str, Fit]:
    """The stages after the source as it is: random contrasts, then pseudo-labels where they are wanted.

    Parameters
    ----------
    steps, last
        Of random contrasts, and of pseudo-labels.
    warm
        Whether the network knows the source already.
    """
    model, style = problem.network, changes(settings)
    lesson = _changed(problem, settings, style, 0.0 if warm else EASE)
    name = "contrasts" if warm else "train"
    stages = {name: learn(problem, settings, work, lesson, name, model, steps=steps)}
    if not settings.uses("pseudo-labels"):
        return stages
    return stages | label_and_vary(problem, settings, work, last, lesson)


def label_and_vary(
    problem: Problem, settings: AdaptationSettings, work: Work, steps: int, lesson: Lesson | None = None
) -> dict[str, Fit]:
    """The last stage: pseudo-labels train, beside source images in random contrasts and in grey levels of the target.

    Parameters
    ----------
    lesson
        Of the stage before; None makes the same again.
    """
    model, style = problem.network, changes(settings)
    lesson = lesson or _changed(problem, settings, style, 0.0)
    before = copy.deepcopy(model)

    def later(found: Sequence[Pair]) -> Style | None:
        looks: list[tuple[float, Style | None]] = [(1.0, None)]
        if style is not None:
            looks.append((1.0, _always(settings)))
        if settings.uses("target-look"):
            looks.append((1.0, chain([paint_like(look_of(found, len(problem.classes))), degrade])))
        return one_of(looks)

    mild = sometimes(degrade, 0.5)
    stages = label_and_learn(problem, settings, work, lesson, max(1, steps), style=mild, later=later)
    keep_if_believed(problem, work, before, model)
    return stages


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


def keep_if_believed(
    problem: Problem, work: Work, before: nn.Module, model: nn.Module, what: str = "pseudo-labels"
) -> None:
    """Take a stage back where it has made answers clearly less believable, as when a structure is lost."""
    was, now = trust(problem, before), trust(problem, model)
    if now < KEPT * was:
        work.say(f"{what} lowered the trust from {was:.2f} to {now:.2f}: the weights before them are kept")
        model.load_state_dict(before.state_dict())


def changes(settings: AdaptationSettings) -> Style | None:
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
