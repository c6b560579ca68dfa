"""Which approximation stands where: each is sensed alone on calibration images, then one of each is planned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fewer.approximate import activation, norm, softmax
from fewer.approximate.compile import compile_transformer, observe
from fewer.approximate.sites import approximated, find_sites
from fewer.approximate.transformer import Choice, IntegerTransformer
from fewer.core.allocation.allocate import allocate
from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError, near_match
from fewer.core.option import Option
from fewer.core.unit import Unit

__all__ = ["PUBLISHED", "Mix", "check_wish", "plan_approximations"]

_KINDS = {
    "softmax": [*softmax.SOFTMAXES],
    "activation": [n for n in activation.ACTIVATIONS if n.endswith("gelu")],
    "norm": ["layer-norm", "factor-layer-norm"],
}
_WORK = {"softmax": softmax.WORK, "activation": activation.WORK, "norm": norm.WORK}


@dataclass(frozen=True)
class Mix:
    """A planned mix.

    Attributes
    ----------
    net
        The integer transformer with it.
    choices
        Block to approximations.
    distortion
        Relative squared error of the features against float, measured on the images; ``predicted`` is the plan's sum
        beyond the method that does least in each place, and beyond what rounding to 8 bits does.
    single
        The same error for each set of methods that is used everywhere: ``softmax/activation/norm``.
    joules, dearest
        Modelled energy of all non-linear operations for one image: of the mix, and with the dearest method everywhere.
    """

    net: IntegerTransformer
    choices: dict[int, Choice]
    distortion: float
    predicted: float
    single: dict[str, float]
    joules: float
    dearest: float


PUBLISHED = {
    "i-bert": Choice("polynomial", "integer-gelu", "layer-norm"),
    "i-vit": Choice("shift", "shift-gelu", "layer-norm"),
    "fq-vit": Choice("log2", "integer-gelu", "factor-layer-norm"),
}
"""Sets of methods as papers use them together."""


def check_wish(value: str | None) -> str | None:
    """What ``--approximate`` may say: ``best``, ``auto``, a published set, or a budget of modelled energy.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> check_wish("i-bert"), check_wish("energy=0.7x")
    ('i-bert', 'energy=0.7x')
    """
    names = ["best", "auto", *PUBLISHED]
    if value is None or value in names:
        return value
    if not value.startswith("energy="):
        raise ValueError(f"there is no '{value}'{near_match(value, names)}; or a budget such as energy=0.7x")
    try:
        Budget.parse(value)
    except FewerError as error:
        raise ValueError(str(error)) from None
    return value


def plan_approximations(
    model: nn.Module,
    images: Tensor,
    pixels: np.ndarray,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    budget: str = "energy=0.7x",
    blocks_at_once: int = 1,
) -> Mix:
    """Choose a softmax, activation and norm for every block under a budget of modelled energy.

    Each option is sensed alone, in the float model: what it does to the features would drown in what rounding of all
    else to bytes does. Energy is that of integer operations in 45 nm, see
    :class:`~fewer.approximate.method.Work`; a share refers to the dearest method everywhere.

    Parameters
    ----------
    model
        A Vision Transformer in timm's names.
    images
        [N, 3, side, side] as the model takes them; ranges are observed on them.
    pixels
        The same images as integers 0 to 255, on which integer networks are measured.
    mean, std
        Of the preprocessing.
    budget
        ``energy=0.7x`` or an amount.
    blocks_at_once
        Sense so many neighbouring blocks together, which is as much quicker.

    Raises
    ------
    FewerError
        For a budget that cannot be met; the sentence says the least.
    """
    seen = observe(model, images)
    with torch.no_grad():
        wanted = model(images).double().numpy()
    size = float((wanted**2).sum())
    count = len(list(model.blocks))  # type: ignore[arg-type]

    def made(choices: dict[int, Choice]) -> IntegerTransformer:
        return compile_transformer(model, images, mean=mean, std=std, choices=choices, seen=seen)

    def error(choices: dict[int, Choice]) -> float:
        return float(((made(choices).features(pixels) - wanted) ** 2).sum()) / size

    def alone(group: list[int], kind: str, method: str) -> float:
        places = [site for site in sites if site.kind == kind and site.name.startswith(tuple(_inside(group)))]
        with approximated(model, {site.name: {kind: method} for site in places}), torch.no_grad():
            return float(((model(images).double().numpy() - wanted) ** 2).sum()) / size

    sites = find_sites(model, lambda m: m(images[:1]))
    tokens, width, heads, hidden = _sizes(model, wanted)
    numbers = {"softmax": heads * tokens * tokens, "activation": tokens * hidden, "norm": 2 * tokens * width}
    groups = [list(range(i, min(i + blocks_at_once, count))) for i in range(0, count, blocks_at_once)]
    curves, names = [], []
    for group in groups:
        for kind, methods in _KINDS.items():
            found = {m: alone(group, kind, m) for m in methods}
            # the first option of a curve is free of distortion, so that others count what they add to the least
            order = sorted(methods, key=lambda m: found[m])
            joules = [1e-12 * len(group) * numbers[kind] * _WORK[kind][m].picojoules for m in order]
            distortion = [found[m] - found[order[0]] for m in order]
            options = (Option(), *(Option(f"approximate:{m}") for m in order[1:]))
            unit = Unit(f"blocks.{group[0]}.{kind}", "function", (numbers[kind],))
            curves.append(Curve(unit, options, {"energy": np.array(joules)}, np.array(distortion)))
            names.append((group, kind, order))
    dearest = sum(float(c.cost["energy"].max()) for c in curves)
    plan = allocate(CurveSet(tuple(curves), came={"energy": dearest}), budget)
    picked: dict[int, dict[str, str]] = {i: {} for i in range(count)}
    for (group, kind, methods), k in zip(names, plan.choice.tolist(), strict=True):
        for i in group:
            picked[i][kind] = methods[k]
    choices = {i: Choice(**kinds) for i, kinds in picked.items()}
    single = {name: error(dict.fromkeys(range(count), choice)) for name, choice in PUBLISHED.items()}
    joules = sum(float(c.cost["energy"][k]) for c, k in zip(curves, plan.choice.tolist(), strict=True))
    net = made(choices)
    distortion = float(((net.features(pixels) - wanted) ** 2).sum()) / size
    return Mix(net, choices, distortion, float(plan.distortion), single, joules, dearest)


def _inside(group: list[int]) -> list[str]:
    """How names of modules of some blocks begin."""
    return [f"blocks.{i}." for i in group]


def _sizes(model: nn.Module, features: np.ndarray) -> tuple[int, int, int, int]:
    state = model.state_dict()
    block = next(iter(model.blocks))  # type: ignore[arg-type]
    attention = block.attn
    heads = int(getattr(attention, "num_heads", None) or attention.heads)
    return features.shape[1], features.shape[2], heads, len(state["blocks.0.mlp.fc1.bias"])
