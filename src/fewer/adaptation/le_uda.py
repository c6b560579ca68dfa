"""MT-UDA and LE-UDA: two teachers over streams of translated images, and few source labels.

Z. Zhao, F. Zhou, K. Xu, Z. Zeng, C. Guan, S. K. Zhou, *LE-UDA: Label-efficient unsupervised domain adaptation for
medical image segmentation*, TMI 2022, arXiv 2212.02078; and its forerunner *MT-UDA*, MICCAI 2021. Streams, losses and
weights of the consistencies (1 within a domain, 0.1 across) are those of MT-UDA's published code. LE-UDA's adversarial
part is known from its figure only: discriminators at the last two decoder stages tell student from teacher features.
The least-squares form, small patch discriminators, one per depth for both teachers, and the weights (1e-3, 2e-4) were
chosen here.

Both teachers are moving averages of the one student with one decay, so they have the same weights: they are kept once,
and differ in what they see (source-like or target-like images).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.adaptation.choice import judge
from fewer.adaptation.learn import Lesson, Part, Stream, forget_graph, learn, noisy, ramp
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
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
    """

    s: Sequence[Pair]
    st: Sequence[Pair]
    sts: Sequence[Pair]
    t: Sequence[Pair]
    ts: Sequence[Pair]
    tst: Sequence[Pair]


def _streams(problem: Problem, settings: AdaptationSettings, work: Work) -> tuple[Streams, Adapted]:
    every: list[Pair] = [*problem.source, *((image, None) for image in problem.unlabelled)]
    found = Adapted(problem.network)
    target: list[Pair] = [(image, None) for image in problem.target]
    if not settings.uses("translation"):
        return Streams(every, every, every, target, target, target), found
    forth, back, stage = train_cyclegan(problem, settings, work, every)
    found.stages["cyclegan"] = stage
    st = [(forth.image(x), y) for x, y in every]
    checks = check_translation(problem, [x for x, _ in st[: len(problem.source)]])
    found.checks = checks.to_dict()
    if not checks.safe:
        work.say(f"the translator is not used: {checks.sentence}")
        return Streams(every, every, every, target, target, target), found
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
    intra, inter = settings.uses("intra"), settings.uses("inter")
    model = problem.network
    if not (intra or inter or adversarial):
        stages = _plain(problem, settings, work, streams)
        found.stages |= stages
        return found
    loop: Any = settings
    labelled = [pair for pair in streams.s if pair[1] is not None]
    cycled = [pair for pair in streams.sts if pair[1] is not None]
    hidden = lambda pairs: [(image, None) for image, _ in pairs]  # noqa: E731 (patches of one place for all streams)
    label_batch = _one_crop(problem, [labelled, cycled], 0)
    source_batch = _one_crop(problem, [hidden(streams.s), hidden(streams.st), hidden(streams.sts)], 60)
    target_batch = _one_crop(problem, [streams.t, streams.ts, streams.tst], 61)
    whole = nn.ModuleDict({"student": model})
    names = problem.taps if adversarial else ()
    if adversarial and not names:
        work.say("this network's decoder is not known, so the discriminators see the class scores")
    critics = _critics(problem, names, adversarial)
    whole["critics"] = critics
    forget_graph(whole)
    average = Average(whole, settings.teacher_decay)
    average.teacher()  # made before the first step, while nothing hangs on a graph
    clock = Part()
    few = max(1, loop.batch // 4)
    weights = dict(zip(names or ("",), settings.adversarial, strict=False))

    def teacher() -> nn.Module:
        return average.teacher().get_submodule("student").eval()  # type: ignore[index]

    def run(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with _tapped(net, names) as seen:
            logits = problem.scales(net(x))[0]
        return logits, dict(seen) if names else {"": logits}

    def learn_student(_: Any, step: int) -> dict[str, Tensor]:
        pairs = label_batch(step)
        half = max(1, loop.batch // 2)
        x, y = torch.cat([p[0][:half] for p in pairs]), torch.cat([p[1][:half] for p in pairs])
        losses = {"labelled": problem.loss(problem.scales(model(x)), y, (1.0,))}
        (s, st, sts), (t, ts, tst) = ([p[0][:few] for p in batch(step)] for batch in (source_batch, target_batch))
        factor, scale = ramp(clock.part), 1.0 if settings.consistency is None else settings.consistency
        sees: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        mine = {k: run(model, v) for k, v in (("s", s), ("ts", ts), ("sts", sts))}
        with torch.no_grad():
            theirs = {
                k: run(teacher(), noisy(v, settings.noise))
                for k, v in (("s", s), ("ts", ts), ("st", st), ("t", t), ("tst", tst))
            }
        if intra:
            parts = [(mine[k][0].softmax(1) - theirs[k][0].softmax(1)).square().mean() for k in ("s", "ts")]
            losses["intra"] = scale * factor * torch.stack(parts).sum()
            sees.append((mine["ts"][1], theirs["ts"][1]))
        if inter:
            couples = (("s", "st"), ("sts", "st"), ("ts", "t"), ("ts", "tst"))
            parts = [
                (self_information(mine[a][0]) - self_information(theirs[b][0])).square().sum(1).mean()
                for a, b in couples
            ]
            losses["inter"] = STRUCTURAL * scale * factor * torch.stack(parts).sum()
            sees.append((mine["ts"][1], theirs["t"][1]))
        if adversarial:
            parts = [
                weights[k] * fooled(critics[_key(k)](a[k])) for a, _b in sees or [(mine["ts"][1], {})] for k in weights
            ]
            losses["adversarial"] = factor * torch.stack(parts).sum()
        return losses

    def learn_critics(_: Any, step: int) -> Tensor:
        t, ts, _tst = (p[0][:few] for p in target_batch(step))
        with torch.no_grad():
            mine, same, other = run(model, ts)[1], run(teacher(), ts)[1], run(teacher(), t)[1]
        parts = [
            told_apart(critics[_key(k)](theirs[k]), critics[_key(k)](mine[k]))
            for theirs in (same, other)
            for k in weights
        ]
        return torch.stack(parts).sum()

    players = [Player("student", learn_student, ["student"])]
    if adversarial:
        players.insert(
            0, Player("critics", learn_critics, ["critics"], Optimiser("adam", 1e-4, 0.0, betas=(0.5, 0.999)))
        )
    held = problem.held
    done = fit(
        whole,
        players,
        loop,
        work.accelerator,
        name="train",
        progress=work.progress,
        checkpoint=work.checkpoint("train"),
        key=work.key,
        average=average,
        callbacks=[clock],
        validate=Validation(
            lambda net: judge(problem, held, net["student"]),  # pyright: ignore[reportIndexIssue]
            name="choice",
        ),
    )
    done.load_best(whole)
    forget_graph(whole)
    model.eval()
    found.stages["train"] = done
    return found


def _key(name: str) -> str:
    return name.replace(".", "_") or "scores"


def _critics(problem: Problem, names: Sequence[str], adversarial: bool) -> nn.ModuleDict:
    if not adversarial:
        return nn.ModuleDict()
    image = problem.source[0][0]
    side = [min(32, 16 * -(-n // 16)) for n in image.shape[1:]]
    with torch.no_grad(), _tapped(problem.network.eval(), names) as seen:
        logits = problem.scales(problem.network(torch.zeros(1, len(image), *side)))[0]
    seen = seen if names else {"": logits}
    return nn.ModuleDict({_key(k): _critic(v.shape[1], problem.dims) for k, v in seen.items()})


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
    if settings.uses("translation"):
        parts.append(Stream([pair for pair in streams.sts if pair[1] is not None]))
    return {"train": learn(problem, settings, work, Lesson(parts, problem.held), "train", problem.network)}
