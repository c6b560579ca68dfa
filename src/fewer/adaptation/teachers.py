"""Self-training, and a mean teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fewer.adaptation.choice import some, unlearned
from fewer.adaptation.learn import Lesson, Stream, learn
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.pseudo import label, might_be
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style
from fewer.training.history import Fit

MOST = 200
"""Target images that are labelled in a round; some hundred steps do not draw from more."""

__all__ = ["in_rounds", "label_and_learn", "mean_teacher", "self_training"]


def in_rounds(
    problem: Problem,
    settings: AdaptationSettings,
    work: Work,
    lesson: Lesson,
    style: Style | None = None,
) -> dict[str, Fit]:
    """Train on a lesson, then on the lesson and pseudo-labels of the target, as often as the settings say.

    The first stage has two thirds of the steps that the settings give, since bad labels of the target help nobody; the
    rounds share the rest. So a method with pseudo-labels costs no more steps than one without.

    Parameters
    ----------
    style
        Of pseudo-labelled images.
    """
    model, steps = problem.network, getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    if not settings.uses("pseudo-labels"):
        return {"train": learn(problem, settings, work, lesson, "train", model)}
    first = max(1, 2 * steps // 3)
    stages = {"train": learn(problem, settings, work, lesson, "train", model, steps=first)}
    return stages | label_and_learn(problem, settings, work, lesson, steps - first, style=style)


def label_and_learn(
    problem: Problem,
    settings: AdaptationSettings,
    work: Work,
    lesson: Lesson,
    steps: int,
    *,
    style: Style | None = None,
    later: Callable[[Sequence[Pair]], Style | None] | None = None,
) -> dict[str, Fit]:
    """Rounds of pseudo-labels, each of which labels the target anew and trains on the lesson and on what was found.

    Where a network has not learned more than half of the structures it is too early for labels of the others: in the
    one run that compared (MS-MT, simulated, 250 steps, three of four missing) Dice was 0.07 with them and 0.10 without.

    Parameters
    ----------
    steps
        Of all rounds together.
    style
        Of pseudo-labelled images.
    later
        From pseudo-labelled images to the style of source images; None keeps that of the lesson.
    """
    model, stages = problem.network, {}
    each = max(1, steps // settings.rounds)
    for number in range(1, settings.rounds + 1):
        check = settings.uses("filter")
        missing = unlearned(problem, model) if check else []
        if missing:
            work.say(
                f"round {number}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not found even in source "
                "scans yet, so that no pseudo-label says where; give more --steps"
            )
        found: list[Pair] = []
        if 2 * len(missing) < len(problem.classes):  # at most half of the structures
            images, opened = some(problem.target, MOST), might_be(problem, model, missing)
            with work.progress.stage("label", len(images)) as shown:
                found = label(problem, model, images, check=check, open_classes=opened, advance=shown.advance)
            work.say(f"round {number}: pseudo-labels of {len(found)} of {len(images)} target scans are plausible")
        streams = list(lesson.labelled)
        if found and later is not None:
            streams = [Stream(stream.pairs, later(found)) for stream in streams]
        if found:
            streams.append(Stream(found, style))
        else:
            work.say("the training goes on without pseudo-labels")
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
