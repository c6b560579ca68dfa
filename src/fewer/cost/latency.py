"""What every option of every layer takes on a device, in milliseconds that add up to the time of the whole model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fewer.core.option import Option
from fewer.core.precision import KERNEL_PRECISIONS
from fewer.core.unit import Unit
from fewer.cost.profile import DeviceProfile, knots, way_of
from fewer.cost.subjects import AS_IT_CAME, Subject, find_subjects, random_mask, runs_as
from fewer.kernels.accelerate import accelerate
from fewer.models.running import evaluating

__all__ = ["PATTERNS", "Costs", "LatencyModel", "measure_model"]

PATTERNS = ("block:16x4", "block:16x16", "block:32x32", "block:16x1")
_SPARSE = Option("block:16x4", 0.75)  # the whole model is timed like this, too: layers inside of it gain a little less
_SLOPES = (0.5, 1.5)


@dataclass(frozen=True)
class Costs:
    """Milliseconds of one forward pass of the batch, ready for curves.

    Attributes
    ----------
    units : dict of str to array
        For each unit one number per option.
    fixed : float
        What every plan takes beside its units.
    came : float
        What the model takes as it came, in torch. All first options together may take less: a layer that keeps its
        weights still runs on the quickest kernel for them.
    """

    units: dict[str, np.ndarray]
    fixed: float
    came: float


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Times of a model's layers and of the whole model, from a device profile.

    The time of a plan is a sum. What a layer takes alone comes from the profile. The rest of the model (attention,
    norms, additions, conversions between layers) is the time of the whole model less its layers, once for each
    precision with every layer on its fast kernel. The cheapest rest is the fixed cost; what the others take more is
    spread over the layers that run in that precision, since it is they that cause it. A layer that stays as it came
    costs what its fp32 kernel takes.

    Attributes
    ----------
    profile : DeviceProfile
        Holds every time that is needed.
    subjects : dict of str to Subject
        By unit name; units that are missing take no measured time of their own.
    whole : str
        Key of the model in the profile.
    precisions : tuple of str
        That the whole model was timed at.
    """

    profile: DeviceProfile
    subjects: Mapping[str, Subject]
    whole: str
    precisions: tuple[str, ...]

    def alone(self, name: str, option: Option) -> float:
        """Milliseconds of one layer by itself at an option; 0 for one that is not timed."""
        subject = self.subjects.get(name)
        if subject is None:
            return 0.0
        came = self.profile.ms(subject.key, AS_IT_CAME)
        if option == Option():
            return came
        precision = runs_as(option.precision)
        if subject.stage is not None:
            return self._in_stage(subject, option, precision)
        if option.removes:
            return self._smaller(subject, option.removes, option.sparsity, precision)
        found = [] if subject.fused else [came]
        for way in ways_of(subject, precision):
            if way.startswith("native") and option.pattern.startswith("block:"):
                shape = subject.module.weight.shape
                found.append(self.profile.at(subject.key, way, option.pattern, option.sparsity, shape))
            else:
                found.append(self.profile.ms(subject.key, way))
        return min(found, default=came)

    def _smaller(self, subject: Subject, side: str, sparsity: float, precision: str) -> float:
        """Milliseconds of a layer that has lost channels on one side."""
        ways = [*([] if subject.fused else [AS_IT_CAME]), *ways_of(subject, precision)]
        shape = subject.module.weight.shape
        times = [self.profile.at(subject.key, way, side, sparsity, shape) for way in ways]
        return min(times, default=self.profile.ms(subject.key, AS_IT_CAME))

    def _in_stage(self, subject: Subject, option: Option, precision: str) -> float:
        """A layer's part of its stage: its share of the stage in fp32, and what the stage gains by the option."""
        blocks = option.pattern.startswith("block:")
        pattern, sparsity = (option.pattern, option.sparsity) if blocks else (_SPARSE.pattern, 0.0)
        way, shape = subject.stage_way(precision), subject.module.weight.shape
        whole = self.profile.at(subject.key, way, pattern, sparsity, shape)
        part = max(0.0, whole - (1 - subject.share) * self.profile.ms(subject.key, subject.stage_way("fp32")))
        if option.removes is None:
            return part
        few, all_of_them = (self._smaller(subject.lone, option.removes, s, precision) for s in (option.sparsity, 0.0))
        return part * few / all_of_them

    def dense_ms(self) -> float:
        """Milliseconds of the whole model as it came."""
        return self.profile.ms(self.whole, AS_IT_CAME)

    def costs(self, options: Mapping[str, Sequence[Option]]) -> Costs:
        """Cost of each option of each unit, and of the rest.

        Parameters
        ----------
        options
            By unit name; the first of each is the dense layer as it came.
        """
        names = list(options)
        rest: dict[str, float] = {}
        packed: dict[str, dict[str, float]] = {}
        slope: dict[str, float] = {}
        for p in self.precisions:
            packed[p] = {n: self.alone(n, Option("dense", precision=p)) for n in names}
            if p == "fp32":
                packed[p] = {n: self.alone(n, Option(_SPARSE.pattern)) for n in names}
            gained = sum(packed[p].values()) - sum(self.alone(n, _sparse(p)) for n in names)
            whole = [self.profile.ms(self.whole, w) for w in (_whole_way(p), _whole_way(p, _SPARSE))]
            slope[p] = float(np.clip((whole[0] - whole[1]) / gained, *_SLOPES)) if gained > 0 else 1.0
            rest[p] = whole[0] - sum(packed[p].values())
        fixed = max(0.0, min(rest.values()))
        share = self._shares(names)
        units = {}
        for n in names:
            row = [packed["fp32"][n] + share[n] * (rest["fp32"] - fixed)]
            for option in options[n][1:]:
                p = runs_as(option.precision)
                # the slope is that of sparse kernels; a smaller dense layer never gains more than it does alone
                inside = min(slope[p], 1.0) if option.removes else slope[p]
                alone = packed[p][n] + inside * (self.alone(n, option) - packed[p][n])
                row.append(alone + share[n] * (rest[p] - fixed))
            units[n] = np.maximum(np.array(row), 0.0)
        return Costs(units, fixed, self.dense_ms())

    def _shares(self, names: Sequence[str]) -> dict[str, float]:
        """How the rest is spread: over the layers of fused blocks where there are any, else over all that are timed."""
        timed = [n for n in names if n in self.subjects]
        chosen = [n for n in timed if self.subjects[n].fused] or timed
        return {n: (1 / len(chosen) if n in chosen else 0.0) for n in names}


def ways_of(subject: Subject, precision: str) -> list[str]:
    """Names of the ways to run a layer at a precision, without building them twice."""
    return list(subject.ways(None, precision))


def _sparse(precision: str) -> Option:
    return Option(_SPARSE.pattern, _SPARSE.sparsity, precision)


def _whole_way(precision: str, option: Option | None = None) -> str:
    return f"accelerated {precision}" + (f" {option}" if option is not None else "")


def fingerprint(model: nn.Module, example: Any) -> str:
    """A short text for the structure of a model and the size of its input: times depend on nothing else of it."""
    shapes = [tuple(t.shape) for t in (example if isinstance(example, tuple) else (example,))]
    digest = hashlib.sha256(repr(model).encode()).hexdigest()[:12]
    return f"{type(model).__name__} {digest} on {shapes}"


def measure_model(
    profile: DeviceProfile,
    model: nn.Module,
    units: Sequence[Unit],
    example: Any,
    *,
    patterns: Sequence[str] = PATTERNS,
    precisions: Sequence[str] = KERNEL_PRECISIONS,
    sides: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> LatencyModel:
    """Time whatever a profile does not know yet about a model's layers, and about the model as a whole.

    Parameters
    ----------
    profile
        Of this machine; of another one it must know everything already.
    model
        Dense, on the CPU; it is not changed.
    units
        Layers to time. Others count as a part of the rest.
    example
        Tensor, or tuple of the model's arguments, of the batch size that will be used.
    patterns
        Block patterns that will be options.
    precisions
        Precisions that will be options; ``fp32`` is always timed, too.
    sides
        ``columns`` or ``rows`` for the units that may lose input or output channels.
    progress
        Called with (what is timed, number done, number of all).

    Raises
    ------
    FewerError
        When timings are missing and cannot be made here.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(64, 64)).eval()
    >>> made = measure_model(DeviceProfile.here(), net, [Unit("0", "linear", (64, 64))],
    ...                      torch.zeros(4, 64))  # doctest: +SKIP
    """
    tell = progress or (lambda what, done, of: None)
    wanted = tuple(p for p in KERNEL_PRECISIONS if p in precisions or p == "fp32")
    with evaluating(model):
        subjects = find_subjects(model, units, example)
    distinct = {subject.key: subject for subject in subjects}
    steps = len(distinct) + len(wanted)
    of_key = {key: {(sides or {}).get(s.name) for s in subjects if s.key == key} for key in distinct}
    for done, (key, subject) in enumerate(distinct.items()):
        tell(subject.name, done, steps)
        with evaluating(model), torch.inference_mode():
            ways = _layer_ways(subject, patterns, wanted)
            for side in sorted(side for side in of_key[key] if side):
                ways |= _smaller_ways(subject.lone, side, wanted)
                if subject.stage is not None:  # what they are held against
                    ways |= {
                        way: partial(_way, subject.lone, way, p) for p in wanted for way in ways_of(subject.lone, p)
                    }
            profile.measure(key, ways)
    whole = f"model {fingerprint(model, example)}"
    names = [subject.name for subject in subjects]
    for done, p in enumerate(wanted):
        tell(f"the whole model in {p}", len(distinct) + done, steps)
        ways = {AS_IT_CAME: lambda: _runner(model, example)}
        ways[_whole_way(p)] = lambda p=p: _accelerated(model, names, example, p, None)
        ways[_whole_way(p, _SPARSE)] = lambda p=p: _accelerated(model, names, example, p, _SPARSE)
        # torch's time of the whole model swings with what the host does to its memory: the best of several counts
        with evaluating(model):
            profile.measure(whole, ways, budget_ms=400.0, again=(AS_IT_CAME,))
    tell("done", steps, steps)
    return LatencyModel(profile, {s.name: s for s in subjects}, whole, wanted)


def _layer_ways(
    subject: Subject, patterns: Sequence[str], precisions: Sequence[str]
) -> dict[str, Callable[[], Callable[[], object]]]:
    ways: dict[str, Callable[[], Callable[[], object]]] = {AS_IT_CAME: subject.as_it_came}
    shape = subject.module.weight.shape
    for p in precisions:
        for way in ways_of(subject, p):
            ways[way] = lambda way=way, p=p: subject.ways(None, p)[way]
            if way.startswith("native") and "depthwise" not in way:
                for option in (Option(pattern, s) for pattern in patterns for s in knots()):
                    ways[way_of(way, option.pattern, option.sparsity)] = lambda way=way, p=p, option=option: (
                        subject.ways(random_mask(shape, option), p)[way]
                    )
    return ways


def _smaller_ways(
    subject: Subject, side: str, precisions: Sequence[str]
) -> dict[str, Callable[[], Callable[[], object]]]:
    """The same ways with fewer channels; nothing is made before it is timed."""
    ways: dict[str, Callable[[], Callable[[], object]]] = {}
    for s in knots():
        ways[way_of(AS_IT_CAME, side, s)] = lambda s=s: subject.smaller(side, s).as_it_came()
        for p in precisions:
            for way in ways_of(subject, p):
                ways[way_of(way, side, s)] = lambda way=way, p=p, s=s: _smaller_way(subject.smaller(side, s), way, p)
    return ways


def _way(subject: Subject, way: str, precision: str) -> Callable[[], object]:
    return subject.ways(None, precision)[way]


def _smaller_way(subject: Subject, way: str, precision: str) -> Callable[[], object]:
    """A way to run a layer that has lost channels; what would run in its place where too few are left for it."""
    found = subject.ways(None, precision)
    if way in found:
        return found[way]
    native = next((name for name in found if name.startswith("native")), None)
    return found[native] if native is not None and way.startswith("native") else subject.as_it_came()


def _runner(model: nn.Module, example: Any) -> Callable[[], object]:
    return lambda: model(*example) if isinstance(example, tuple) else model(example)


def _accelerated(
    model: nn.Module, names: Sequence[str], example: Any, precision: str, option: Option | None
) -> Callable[[], object]:
    masks = {}
    if option is not None:
        for seed, name in enumerate(names):
            weight: Any = model.get_submodule(name).weight
            masks[name] = random_mask(weight.shape, option, seed)
    fast, _ = accelerate(model, masks, example=example, precision=dict.fromkeys(names, precision), budget_ms=8.0)
    return _runner(fast, example)
