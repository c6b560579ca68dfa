"""MT-UDA and LE-UDA: two teachers over streams of translated images, and few source labels.

Z. Zhao, F. Zhou, K. Xu, Z. Zeng, C. Guan, S. K. Zhou, *LE-UDA: Label-efficient unsupervised domain adaptation for
medical image segmentation*, TMI 2022, arXiv 2212.02078; and its forerunner *MT-UDA*, MICCAI 2021. Streams, losses and
weights of the consistencies (1 within a domain, 0.1 across) are those of MT-UDA's published code. LE-UDA's adversarial
part is known from its figure only: discriminators at the last two decoder stages tell student from teacher features.
The least-squares form, small patch discriminators, one per depth for both teachers, and the weights (1e-3, 2e-4) were
chosen here.

Both teachers are moving averages of the one student with one decay, so they have the same weights: they are kept once,
and differ in what they see (source-like or target-like images).

The papers have no answer to a translator that deletes or invents structures. Here such a translator is refused, and
random intensity curves take its place: another contrast of the same anatomy is what the consistencies need. The student
learns from source images as they are and from curved ones, and sees target images as they are or curved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.adaptation.baselines import sometimes
from fewer.adaptation.choice import judge
from fewer.adaptation.learn import Lesson, Part, Stream, device_of, forget_graph, learn, noisy, ramp, styled
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import Style, random_curve
from fewer.adaptation.translate.cyclegan import train_cyclegan
from fewer.adaptation.translate.losses import fooled, told_apart
from fewer.adaptation.translate.networks import patch_discriminator
from fewer.adaptation.translate.safety import check_translation
from fewer.training.average import Average
from fewer.training.loop import Validation, fit
from fewer.training.optimise import Optimiser, Player

__all__ = ["Streams", "le_uda", "mt_uda", "self_information"]

STRUCTURAL = 0.1
"""Weight of the consistency across domains, beside 1 within a domain."""


def self_information(logits: Tensor) -> Tensor:
    """Weighted self-information ``p log2 p`` of every class and pixel (MT-UDA, eq. 4).

    Examples
    --------
    >>> self_information(torch.zeros(1, 2, 1)).flatten().tolist()
    [-0.5, -0.5]
    """
    p = logits.float().softmax(1)
    return p * p.clamp_min(1e-8).log2()


@dataclass(frozen=True)
class Streams:
    """The images of both domains and their translations.

    Attributes
    ----------
    s, st, sts
        Source images, in target look, and back again.
    t, ts, tst
        Target images likewise.
    curved
        There is no translator: all lists of a domain are the same, and each draw gets a random curve.
    """

    s: Sequence[Pair]
    st: Sequence[Pair]
    sts: Sequence[Pair]
    t: Sequence[Pair]
    ts: Sequence[Pair]
    tst: Sequence[Pair]
    curved: bool = False


def _streams(problem: Problem, settings: AdaptationSettings, work: Work) -> tuple[Streams, Adapted]:
    every: list[Pair] = [*problem.source, *((image, None) for image in problem.unlabelled)]
    found = Adapted(problem.network)
    target: list[Pair] = [(image, None) for image in problem.target]
    alike = Streams(every, every, every, target, target, target, settings.uses("curves"))
    if not settings.uses("translation"):
        return alike, found
    forth, back, stage = train_cyclegan(problem, settings, work, every)
    found.stages["cyclegan"] = stage
    st = [(forth.image(x), y) for x, y in every]
    checks = check_translation(problem, [x for x, _ in st[: len(problem.source)]])
    found.checks = checks.to_dict()
    if not checks.safe:
        instead = "; random curves take its place" if alike.curved else ""
        work.say(f"the translator is not used: {checks.sentence}{instead}")
        return alike, found
    work.say(f"the translator is used: {checks.sentence}")
    found.translated = [x for x, _ in st[: len(problem.source)]]
    found.translator = back.network
    sts = [(back.image(x), y) for x, y in st]
    ts: list[Pair] = [(back.image(x), None) for x, _ in target]
    tst: list[Pair] = [(forth.image(x), None) for x, _ in ts]
    return Streams(every, st, sts, target, ts, tst), found


@contextmanager
def _tapped(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the named modules put out in the latest forward pass."""
    seen: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen[name] = output

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _one_crop(problem: Problem, lists: Sequence[Sequence[Pair]], stream: int) -> Any:
    """Batches that draw the same cases, places and flips from several lists."""
    draws = [problem.sampler(pairs, stream) for pairs in lists]

    def batch(step: int) -> list[tuple[Tensor, Tensor]]:
        return [draw(step) for draw in draws]

    return batch


def mt_uda(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Two teachers, without the adversarial part."""
    return _two_teachers(problem, settings, work, adversarial=False)


def le_uda(problem: Problem, settings: AdaptationSettings, work: Work) -> Adapted:
    """Two teachers, and discriminators of student and teacher features at two decoder depths."""
    return _two_teachers(problem, settings, work, adversarial=settings.uses("adversarial"))


def _two_teachers(problem: Problem, settings: AdaptationSettings, work: Work, *, adversarial: bool) -> Adapted:
    streams, found = _streams(problem, settings, work)
    # target images will be given the look of the source first, so these are what the choice looks at
    problem = replace(problem, target=[image for image, _ in streams.ts])
    if not (settings.uses("intra") or settings.uses("inter") or adversarial):
        found.stages |= _plain(problem, settings, work, streams)
        return found
    if adversarial and not problem.taps:
        work.say("this network's decoder is not known, so the discriminators see the class scores")
    lesson = _TwoTeachers(problem, settings, streams, adversarial)
    done = fit(
        lesson.whole,
        lesson.players(),
        settings,  # pyright: ignore[reportArgumentType] (the settings of a task extend the loop's)
        work.accelerator,
        name="train",
        progress=work.progress,
        checkpoint=work.checkpoint("train"),
        average=lesson.average,
        callbacks=[lesson.clock],
        validate=Validation(
            lambda net: judge(problem, problem.held, net["student"]),  # pyright: ignore[reportIndexIssue]
            name="choice",
        ),
    )
    done.load_best(lesson.whole)
    forget_graph(lesson.whole)
    problem.network.eval()
    found.stages["train"] = done
    return found


@dataclass(frozen=True)
class _Seen:
    """What a network gave for one stream: class scores, and the features that the critics judge, by tap."""

    logits: Tensor
    features: dict[str, Tensor]


class _TwoTeachers:
    """The student and its teachers on three kinds of batches, and the critics that tell their features apart.

    Streams have the names of :class:`Streams`. The student sees ``s``, ``ts`` and ``sts``, which look like the source;
    the teachers see these and their partners in the look of the target.
    """

    def __init__(self, problem: Problem, settings: AdaptationSettings, streams: Streams, adversarial: bool) -> None:
        self.problem, self.settings, self.adversarial = problem, settings, adversarial
        self.student, self.device = problem.network, device_of(problem.network)
        loop: Any = settings  # the settings of a task extend the loop's
        self.size, self.seed = int(loop.batch), int(loop.seed)
        labelled = [pair for pair in streams.s if pair[1] is not None]
        cycled = [pair for pair in streams.sts if pair[1] is not None]
        self.labelled = _one_crop(problem, [labelled, cycled], 0)
        self.source = _one_crop(problem, [_hidden(streams.s), _hidden(streams.st), _hidden(streams.sts)], 60)
        self.target = _one_crop(problem, [streams.t, streams.ts, streams.tst], 61)
        self.curve = random_curve if streams.curved else None
        self.at_times = sometimes(random_curve, settings.curve_share) if streams.curved else None
        self.names = problem.taps if adversarial else ()
        torch.manual_seed(self.seed)  # critics start alike whatever was trained before
        self.critics = _critics(problem, self.names, adversarial)
        self.critic_weights = dict(zip(self.names or ("",), settings.adversarial, strict=False))
        self.whole = nn.ModuleDict({"student": self.student, "critics": self.critics})
        forget_graph(self.whole)
        self.average = Average(self.whole, settings.teacher_decay)
        self.average.teacher()  # made before the first step, while nothing hangs on a graph
        self.clock = Part()

    def players(self) -> list[Player]:
        """The critics, where there are any, step before the student."""
        student = Player("student", self.student_losses, ["student"])
        if not self.adversarial:
            return [student]
        how = Optimiser("adam", 1e-4, 0.0, betas=(0.5, 0.999))
        return [Player("critics", self.critic_loss, ["critics"], how), student]

    def student_losses(self, _net: Any, step: int) -> dict[str, Tensor]:
        """Of one step: labels, agreement with the teachers within and across domains, and the critics' verdict."""
        losses = {"labelled": self._labelled_loss(step)}
        s, st, sts = self._source_views(step)
        t, ts, tst = self._target_views(step)
        mine = {name: self._run(self.student, images) for name, images in (("s", s), ("ts", ts), ("sts", sts))}
        shown = {"s": s, "ts": ts, "st": st, "t": t, "tst": tst}
        with torch.no_grad():
            theirs = {
                name: self._run(self._teacher(), noisy(images, self.settings.noise)) for name, images in shown.items()
            }
        factor, scale = ramp(self.clock.part), 1.0 if self.settings.consistency is None else self.settings.consistency
        if self.settings.uses("intra"):
            losses["intra"] = scale * factor * _intra(mine, theirs)
        if self.settings.uses("inter"):
            losses["inter"] = STRUCTURAL * scale * factor * _inter(mine, theirs)
        if self.adversarial:
            losses["adversarial"] = factor * self._fooling(mine["ts"].features)
        return losses

    def critic_loss(self, _net: Any, step: int) -> Tensor:
        """The critics tell the student's features of ``ts`` from those of the teachers of ``ts`` and ``t``."""
        t, ts, _tst = self._target_views(step)
        with torch.no_grad():
            mine = self._run(self.student, ts).features
            theirs = [self._run(self._teacher(), images).features for images in (ts, t)]
        parts = [
            told_apart(self.critics[_key(name)](features[name]), self.critics[_key(name)](mine[name]))
            for features in theirs
            for name in self.critic_weights
        ]
        return torch.stack(parts).sum()

    def _labelled_loss(self, step: int) -> Tensor:
        (s, masks), (sts, others) = self.labelled(step)
        half = max(1, self.size // 2)
        cycled = self._changed(sts[:half], self.curve, (23, step))
        x = torch.cat([self._changed(s[:half]), cycled])
        y = torch.cat([masks[:half], others[:half]]).to(self.device)
        return self.problem.loss(self.problem.scales(self.student(x)), y, (1.0,))

    def _fooling(self, mine: dict[str, Tensor]) -> Tensor:
        """How far the critics see through the student: once for each teacher that it is compared with."""
        rounds = max(1, sum(self.settings.uses(name) for name in ("intra", "inter")))
        parts = [
            weight * fooled(self.critics[_key(name)](mine[name]))
            for _ in range(rounds)
            for name, weight in self.critic_weights.items()
        ]
        return torch.stack(parts).sum()

    def _source_views(self, step: int) -> list[Tensor]:
        """Images of ``s``, ``st`` and ``sts``."""
        s, st, sts = self._few(self.source(step))
        return [
            s.to(self.device),
            self._changed(st, self.curve, (24, step)),
            self._changed(sts, self.curve, (25, step)),
        ]

    def _target_views(self, step: int) -> list[Tensor]:
        """Images of ``t``, ``ts`` and ``tst``; without a translator the student is asked about ``ts`` as it is, too."""
        t, ts, tst = self._few(self.target(step))
        return [
            t.to(self.device),
            self._changed(ts, self.at_times, (26, step)),
            self._changed(tst, self.curve, (27, step)),
        ]

    def _changed(self, images: Tensor, style: Style | None = None, key: Sequence[int] = ()) -> Tensor:
        """Images in another style, where the student is."""
        return styled(images, None, style, (self.seed, *key)).to(self.device)

    def _few(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Images alone, a quarter of a batch: each step runs the networks on eight such streams."""
        return [images[: max(1, self.size // 4)] for images, _ in pairs]

    def _teacher(self) -> nn.Module:
        return self.average.teacher().get_submodule("student").eval()

    def _run(self, net: nn.Module, images: Tensor) -> _Seen:
        with _tapped(net, self.names) as seen:
            logits = self.problem.scales(net(images))[0]
        return _Seen(logits, dict(seen) if self.names else {"": logits})


def _intra(mine: dict[str, _Seen], theirs: dict[str, _Seen]) -> Tensor:
    """Student and teacher agree on the same images (mean squared difference of the class probabilities)."""
    parts = [(mine[k].logits.softmax(1) - theirs[k].logits.softmax(1)).square().mean() for k in ("s", "ts")]
    return torch.stack(parts).sum()


def _inter(mine: dict[str, _Seen], theirs: dict[str, _Seen]) -> Tensor:
    """The student's self-information equals a teacher's where both see one anatomy in two looks."""
    couples = (("s", "st"), ("sts", "st"), ("ts", "t"), ("ts", "tst"))
    parts = [
        (self_information(mine[a].logits) - self_information(theirs[b].logits)).square().sum(1).mean()
        for a, b in couples
    ]
    return torch.stack(parts).sum()


def _hidden(pairs: Sequence[Pair]) -> list[Pair]:
    """Without masks, so that patches of one place can be drawn for all streams."""
    return [(image, None) for image, _ in pairs]


def _key(name: str) -> str:
    return name.replace(".", "_") or "scores"


def _critics(problem: Problem, names: Sequence[str], adversarial: bool) -> nn.ModuleDict:
    if not adversarial:
        return nn.ModuleDict()
    patch = problem.sampler(problem.source, 60)(0)[0][:1]  # of a size that the network takes
    with torch.no_grad(), _tapped(problem.network.eval(), names) as seen:
        device = device_of(problem.network)
        logits = problem.scales(problem.network(torch.zeros_like(patch, device=device)))[0]
    seen = seen if names else {"": logits}
    return nn.ModuleDict({_key(k): _critic(v.shape[1], problem.dims) for k, v in seen.items()}).to(device)


def _critic(channels: int, dims: int) -> nn.Module:
    if dims == 2:
        return patch_discriminator(channels, 16)
    return nn.Sequential(
        nn.Conv3d(channels, 16, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv3d(16, 32, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv3d(32, 1, 3, 1, 1),
    )


def _plain(problem: Problem, settings: AdaptationSettings, work: Work, streams: Streams) -> dict[str, Any]:
    """Every module of the teachers is off: labels alone, on the source and on its cycles where there are any."""
    parts = [Stream([pair for pair in streams.s if pair[1] is not None])]
    if settings.uses("translation") or streams.curved:
        style = random_curve if streams.curved else None
        parts.append(Stream([pair for pair in streams.sts if pair[1] is not None], style))
    return {"train": learn(problem, settings, work, Lesson(parts, problem.held), "train", problem.network)}
