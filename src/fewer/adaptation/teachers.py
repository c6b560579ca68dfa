"""Self-training, mean teacher, and random contrasts with self-training, which is the default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fewer.adaptation.baselines import sometimes
from fewer.adaptation.learn import Lesson, Stream, learn
from fewer.adaptation.look import look_of, paint_like
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.pseudo import label
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style, chain, degrade, one_of, random_contrast, random_curve, synthesise
from fewer.training.history import Fit

__all__ = ["contrasts", "in_rounds", "mean_teacher", "ours", "self_training"]


EASE = 0.3
"""Share of a training over which random contrasts come in: what is easy first."""
LOOK = 0.5
"""Share of source images that get the grey levels of the target once these are known."""


def in_rounds(
    problem: Problem,
    settings: AdaptationSettings,
    work: Work,
    lesson: Lesson,
    style: Style | None = None,
    later: Callable[[Sequence[Pair]], Style | None] | None = None,
) -> dict[str, Fit]:
    """Train on a lesson, then on the lesson and pseudo-labels of the target, as often as the settings say.

    The first stage has two thirds of the steps that the settings give, since bad labels of the target help nobody; the
    rounds share the rest. So a method with pseudo-labels costs no more steps than one without.

    Parameters
    ----------
    style
        Of pseudo-labelled images.
    later
        From pseudo-labelled images to the style of source images in the rounds; None keeps that of the lesson.
    """
    model, steps = problem.network, getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    if not settings.uses("pseudo-labels"):
        return {"train": learn(problem, settings, work, lesson, "train", model)}
    first = max(1, 2 * steps // 3)
    each = max(1, (steps - first) // settings.rounds)
    stages = {"train": learn(problem, settings, work, lesson, "train", model, steps=first)}
    for number in range(1, settings.rounds + 1):
        found = label(problem, model, problem.target, check=settings.uses("filter"))
        work.say(f"round {number}: pseudo-labels of {len(found)} of {len(problem.target)} target scans are plausible")
        if not found:
            work.say("no pseudo-label is plausible; the training goes on without them")
        streams = list(lesson.labelled)
        if found and later is not None:
            streams = [Stream(stream.pairs, later(found)) for stream in streams]
        if found:
            streams.append(Stream(found, style))
        wider = replace(lesson, labelled=streams, ease=0.0)
        name = f"round-{number}"
        stages[name] = learn(problem, settings, work, wider, name, model, steps=each)
    return stages


def self_training(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on the source, label the target, train on both."""
    lesson = Lesson([Stream(problem.source)], problem.held)
    return Adapted(problem.network, in_rounds(problem, settings, work, lesson))


def mean_teacher(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train on the source while a mean teacher holds the student to one answer on the target (French 2018)."""
    weight = 1.0 if settings.consistency is None else settings.consistency
    on = settings.uses("consistency")
    lesson = Lesson(
        [Stream(problem.source)], problem.held, target=problem.target if on else (), consistency=weight if on else 0.0
    )
    return Adapted(problem.network, {"train": learn(problem, settings, work, lesson, "train", problem.network)})


def ours(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Random contrasts, and in the last third filtered pseudo-labels of target images, used in two ways.

    The pseudo-labelled images train. And they tell the grey levels of the target's structures, which a part of the
    source images gets from then on, see :func:`~fewer.adaptation.look.paint_like`.

    A mean teacher comes in where a weight is given (``--consistency 3``): the student must give the answer of the
    teacher, who saw the target image as it is, for the image in another contrast. It doubles the time and is off: in
    the one run that compared (T1 to FLAIR, 800 steps, one seed) Dice was 0.55 with it and 0.59 without.
    """
    style, weight = contrasts(settings), settings.consistency or 0.0
    on = settings.uses("consistency") and weight > 0
    lesson = Lesson(
        [Stream(problem.source, style)],
        problem.held,
        target=problem.target if on else (),
        consistency=weight if on else 0.0,
        strong=style,
        ease=EASE,
    )

    def later(found: Sequence[Pair]) -> Style | None:
        if not settings.uses("target-look"):
            return style
        painted = chain([paint_like(look_of(found, len(problem.classes))), degrade])
        return one_of([(1 - LOOK, style), (LOOK, painted)])

    return Adapted(problem.network, in_rounds(problem, settings, work, lesson, sometimes(degrade, 0.5), later))


def contrasts(settings: AdaptationSettings) -> Style | None:
    """What changes the contrast of an image at random, with the modules that are switched on."""
    curve, paint = settings.uses("curves"), settings.uses("structures")
    if not (curve or paint):
        return None
    # one part curves, and one each of shifted structures and of painting from the mask
    styles: list[tuple[float, Style | None]] = [(1.0, random_curve)] * curve
    styles += [(1.0, random_contrast), (1.0, synthesise)] * paint
    changed = chain([one_of(styles), degrade])
    return one_of([(1 - settings.curve_share, None), (settings.curve_share, changed)])
