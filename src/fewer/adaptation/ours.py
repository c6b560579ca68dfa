"""The default: several networks are trained on what they can share, and the one that is trusted most is kept.

No single method is the best everywhere. Where source and target look alike, the source as it is teaches most, and
pseudo-labels add a little; where bright and dark are exchanged, random curves alone find anything. Nobody can say
beforehand which case it is. But afterwards the answers on the target tell, see :func:`~fewer.adaptation.choice.signs`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fewer.adaptation.baselines import curves, source_only
from fewer.adaptation.choice import judge, pooled_dice, signs, target_guesses
from fewer.adaptation.contrasts import changes, contrasts, keep_if_believed, label_and_vary, vary_and_label
from fewer.adaptation.learn import Lesson, Stream
from fewer.adaptation.problem import Adapted, Member, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.teachers import label_and_learn, self_training
from fewer.reports.numbers import duration
from fewer.training.callbacks import trainings_of
from fewer.training.history import Fit

__all__ = ["member_steps", "most_trusted", "ours"]

SHARES = {"source-only": 6, "curves": 8, "self-training": 3, "contrasts": 4, "contrasts, labels": 3}
"""Steps of each stage, in proportion. All networks but ``curves`` go on from the one of the source as it is."""
EXPLORE = 1800
"""Steps after which the choice is made at the earliest; with fewer, trust believed a network with a Dice of 0.04."""
EXPLORED = 9 / 16
"""Share of the steps, where that is more, that all networks get; the kept one goes on for the rest."""
MORE = "the kept one goes on"
"""The last stage."""
SHORT = 1200
"""Steps below which several networks would learn too little each; then there is one, of the method ``contrasts``."""
HOPELESS = 0.5
"""Share of the highest trust so far below which a network's labels of the target are not worth training on."""
DOUBT = 0.5
"""Dice between two networks on the target below which they do not see the same."""


def member_steps(settings: AdaptationSettings) -> dict[str, int]:
    """Steps of every stage; empty where one network is trained and nothing is to be chosen.

    Examples
    --------
    >>> from fewer.tasks.segment.adapt_settings import AdaptSettings
    >>> member_steps(AdaptSettings(steps=1200))
    {'source-only': 300, 'curves': 400, 'self-training': 150, 'contrasts': 200, 'contrasts, labels': 150}
    >>> member_steps(AdaptSettings(steps=3200))["the kept one goes on"]
    1400
    >>> member_steps(AdaptSettings(steps=3200, without=("choice",)))
    {}
    """
    steps: int = getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    wanted = dict(SHARES)
    if not settings.uses("curves"):
        del wanted["curves"]
    if changes(settings) is None:
        del wanted["contrasts"], wanted["contrasts, labels"]
    if not settings.uses("pseudo-labels"):
        wanted = {name: share for name, share in wanted.items() if name not in ("self-training", "contrasts, labels")}
    if len(wanted) < 2 or steps < SHORT or not settings.uses("choice"):
        return {}
    explored = min(steps, max(EXPLORE, int(steps * EXPLORED)))
    found = {name: max(1, explored * share // sum(wanted.values())) for name, share in wanted.items()}
    return found | ({MORE: steps - explored} if steps > explored else {})


def ours(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Train networks of four methods, keep the one whose answers are trusted most, and let it go on.

    ``source-only`` is one of them, and the start of two others: of ``self-training``, and of ``contrasts``. ``curves``
    begins anew, since a network that has learned bright on dark hardly forgets it. Labels of the target that come from
    a network which is trusted less than half as much as another one are not made.
    """
    steps = member_steps(settings)
    if not steps:
        return contrasts(problem, settings, work)
    return _Choice(problem, settings, work, steps).run()


class _Choice:
    """Networks that are trained one after the other, and what is known of them."""

    def __init__(self, problem: Problem, settings: AdaptationSettings, work: Work, steps: Mapping[str, int]) -> None:
        # no label of the target is within reach of what trains or chooses
        self.problem, self.settings, self.work, self.steps = replace(problem, answers=()), settings, work, steps
        self.stages: dict[str, Fit] = {}
        self.members: list[Member] = []
        self.seen: dict[str, list[Tensor]] = {}

    def run(self) -> Adapted:
        """All of them, and the one that is kept."""
        start = copy.deepcopy(self.problem.network)
        trunk = self._train("source-only", self.problem.network, source_only, self.steps["source-only"])
        self._estimate()
        if "curves" in self.steps:
            self._train("curves", copy.deepcopy(start), curves, self.steps["curves"])
        if "self-training" in self.steps and self._is_worth(trunk, "self-training"):
            self._train("self-training", copy.deepcopy(trunk.model), _labels, self.steps["self-training"], trunk)
        if "contrasts" in self.steps:
            both = self.steps["contrasts"] + self.steps.get("contrasts, labels", 0)
            warm = self.settings.uses("warm-start")
            model = copy.deepcopy(trunk.model) if warm else start
            self._train("contrasts", model, self._vary, both, trunk if warm else None)
        kept = most_trusted(self._candidates())
        kept.kept = True
        self._tell(kept)
        return Adapted(self._go_on(kept), self.stages, members=self.members, steps_after_choice=self.steps.get(MORE, 0))

    def _go_on(self, kept: Member) -> nn.Module:
        """Train the kept network for the steps that are left, in its own way; and take that back if it is for worse."""
        steps = self.steps.get(MORE, 0)
        if not steps:
            return kept.model
        # whoever labels the target shall have learned the source well: its training goes on before it labels again
        start = next(one for one in self.members if one.name == STARTS.get(kept.name, kept.name))
        model = copy.deepcopy(start.model)
        problem, work = replace(self.problem, network=model), self.work.under(f"{kept.name}-more")
        settings: Any = self.settings
        with trainings_of(f"{kept.name}-more"):
            found = WAYS[kept.name](problem, settings.model_copy(update={"steps": steps}), work)
        self.stages |= {f"{kept.name}-more-{stage}": fit for stage, fit in found.stages.items()}
        keep_if_believed(self.problem, work, kept.model, model, "more steps")
        return model

    def _train(
        self, name: str, model: nn.Module, method: Callable[..., Adapted], steps: int, before: Member | None = None
    ) -> Member:
        problem = replace(self.problem, network=model)
        settings: Any = self.settings
        work = self.work.under(name)
        with trainings_of(name):
            found = method(problem, settings.model_copy(update={"steps": steps}), work)
        self.stages |= {f"{name}-{stage}": fit for stage, fit in found.stages.items()}
        seen = self.seen[name] = target_guesses(self.problem, model)
        known = {**judge(self.problem, self.problem.held, model), **signs(self.problem, model, seen)}
        member = Member(name, model, steps + (before.steps if before else 0), known)
        self.members.append(member)
        return member

    def _vary(self, problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
        first, last = (self.steps.get(name, 0) for name in ("contrasts", "contrasts, labels"))
        warm = settings.uses("warm-start")
        return Adapted(problem.network, vary_and_label(problem, settings, work, first, last, warm=warm))

    def _is_worth(self, member: Member, name: str) -> bool:
        best, own = max(one.signs["trust"] for one in self.members), member.signs["trust"]
        if self._is_contradicted():
            self.work.say(
                f"{name} is left out: curves, which knows many contrasts, sees other structures in the target than "
                "source-only, which knows one"
            )
            return False
        if own >= HOPELESS * best:
            return True
        self.work.say(f"{name} is left out: the network that would label is trusted {own:.2f}, another one {best:.2f}")
        return False

    def _agree(self, one: str, other: str) -> float:
        """Dice between what two networks see in the target."""
        pairs = list(zip(self.seen[one], self.seen[other], strict=True))
        return pooled_dice(pairs, len(self.problem.classes))

    def _is_contradicted(self) -> bool:
        """Whether the source as it is reads the target otherwise than a network that knows many contrasts.

        Then the contrast of the source does not hold in the target. How sure that network is, and how large what it
        finds is, says nothing any more: from histology to fluorescence it finds gaps between nuclei.
        """
        known = {member.name: member.signs["trust"] for member in self.members}
        if known.get("curves", 0.0) < HOPELESS * known["source-only"] or not known.get("curves"):
            return False
        return self._agree("source-only", "curves") < DOUBT

    def _candidates(self) -> list[Member]:
        if not self._is_contradicted():
            return self.members
        return [member for member in self.members if member.name not in ("source-only", "self-training")]

    def _estimate(self) -> None:
        """Say how long all will take, from the first stage; a message only, since times differ from run to run."""
        seconds = self.stages["source-only-train"].seconds * sum(self.steps.values()) / self.steps["source-only"]
        self.work.tell(f"{len(self.steps)} stages; all together take about {duration(seconds)}")

    def _tell(self, kept: Member) -> None:
        told = ", ".join(f"{one.name} {one.signs['trust']:.2f}" for one in self.members)
        self.work.say(f"{kept.name} is kept; trusted, without a label of the target: {told}")
        others = []
        for member in self.members:
            member.signs["agrees"] = self._agree(kept.name, member.name)
            likely = member.signs["trust"] >= HOPELESS * kept.signs["trust"]
            if member is not kept and likely and member.signs["agrees"] < DOUBT:
                others.append(member.name)
        if others:
            self.work.say(
                f"{', '.join(others)} see{'s' if len(others) == 1 else ''} other structures in the target than "
                f"{kept.name}: look at the pictures of the page, or label a few scans and score with --test"
            )


def most_trusted(members: list[Member]) -> Member:
    """The one with the highest trust; of equal ones the first, which is source-only.

    Examples
    --------
    >>> one, two = (Member(name, nn.Identity(), 1, {"trust": value}) for name, value in (("a", 0.5), ("b", 0.7)))
    >>> most_trusted([one, two]).name
    'b'
    """
    return max(members, key=lambda member: member.signs["trust"])


def _labels(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    steps: int = getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    lesson = Lesson([Stream(problem.source)], problem.held)
    return Adapted(problem.network, label_and_learn(problem, settings, work, lesson, steps))


def _more_contrasts(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    steps: int = getattr(settings, "steps")  # noqa: B009 (of the loop's settings, which the task's extend)
    if settings.uses("pseudo-labels"):
        return Adapted(problem.network, label_and_vary(problem, settings, work, steps))
    return Adapted(problem.network, vary_and_label(problem, settings, work, steps, 0, warm=True))


WAYS: Mapping[str, Callable[[Problem, AdaptationSettings, Work], Adapted]] = {
    "source-only": source_only,
    "curves": curves,
    "self-training": self_training,
    "contrasts": _more_contrasts,
}
"""How a network goes on after it has been chosen."""
STARTS: Mapping[str, str] = {"self-training": "source-only"}
"""From which network it goes on, where that is not itself."""
