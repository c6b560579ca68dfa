"""Integers in place of softmax, activations and norms: each place is sensed alone, then a method of each is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fewer.approximate.plan import PUBLISHED
from fewer.approximate.sites import Site, approximate, choices_of, find_sites
from fewer.core.allocation.allocate import allocate
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.engine.functions import Change, output_of, planned_functions, sense_functions
from fewer.engine.prepare import Prepared
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module

__all__ = ["Approximated", "approximate_model", "has_sites", "sites_of"]


@dataclass(frozen=True, eq=False)
class Approximated:
    """A model with integers in place of functions.

    Attributes
    ----------
    plain
        The model without them.
    model
        With them.
    rows
        One for each place: ``name``, ``function``, ``method``, ``distortion`` of it alone, ``options`` with the
        distortion of every method, and modelled ``joules``.
    distortion
        Of all together, on the images that sensed them; the sum of the rows is ``predicted``.
    images
        So many.
    joint
        Whether the methods were planned together with the layers; then rows are of the dense model.
    """

    plain: nn.Module
    model: nn.Module
    rows: list[dict[str, Any]]
    distortion: float
    predicted: float
    images: int
    joint: bool = False


def sites_of(prepared: Prepared) -> list[Site]:
    """Places of a model where integers can stand for a function.

    Raises
    ------
    FewerError
        When there are none.
    """
    found = _found(prepared)
    if not found:
        raise FewerError(
            f"{prepared.loaded.name} calls no softmax, GELU, SiLU, LayerNorm or RMSNorm, so --approximate has nothing "
            "to do"
        )
    return found


def has_sites(prepared: Prepared) -> bool:
    """Whether there are such places."""
    return bool(_found(prepared))


def _found(prepared: Prepared) -> list[Site]:
    return find_sites(prepared.model, lambda model: output_of(model, prepared, prepared.sensing_images[:1]))


def approximate_model(work: Work, model: nn.Module, planned: Mapping[str, Any] | None = None) -> Approximated:
    """Put an integer method into each place of a compressed model.

    Parameters
    ----------
    work
        The model that was compressed, and ``settings.approximate``: ``best`` takes the method that changes the output
        least, a published set takes its methods everywhere, ``energy=0.7x`` plans the mix that changes it least within
        a share of the modelled energy of the dearest methods. Every method is sensed in the compressed model.
    model
        What became of it; left as it is.
    planned
        What :func:`~fewer.engine.functions.plan_functions` has chosen together with the layers, if it has.
    """
    wanted = work.settings.approximate
    assert wanted is not None
    if planned is None:
        functions = sense_functions(work, model)
        methods = _choose(wanted, functions.sites, functions.distortion)
    else:
        functions, methods = planned_functions(planned)
    choices = choices_of(functions.sites, methods)
    rows = [
        {
            "name": site.name,
            "function": site.function,
            "method": method,
            "distortion": found[method],
            "options": found,
            "joules": site.joules(method),
        }
        for site, method, found in zip(functions.sites, methods, functions.distortion, strict=True)
    ]
    made = approximate(copied_module(model), choices)
    return Approximated(
        plain=model,
        model=made,
        rows=rows,
        distortion=Change(work, model)(choices),
        predicted=sum(r["distortion"] for r in rows),
        images=functions.images,
        joint=planned is not None,
    )


def _choose(wanted: str, sites: Sequence[Site], sensed: Sequence[Mapping[str, float]]) -> list[str]:
    """A method for each place."""
    if wanted in PUBLISHED:
        return [_published(wanted, site) for site in sites]
    if wanted == "best":
        return [min(found, key=lambda name: found[name]) for found in sensed]
    curves = []
    for site, found in zip(sites, sensed, strict=True):
        # the first option of a curve is free of distortion, so that others count what they add to the least
        order = sorted(found, key=lambda name: found[name])
        options = (Option(), *(Option(f"approximate:{name}") for name in order[1:]))
        unit = Unit(f"{site.name}.{site.function}", "function", (site.numbers,))
        cost = {"energy": np.array([site.joules(name) for name in order])}
        curves.append((Curve(unit, options, cost, np.array([found[n] - found[order[0]] for n in order])), order))
    dearest = sum(float(curve.cost["energy"].max()) for curve, _ in curves)
    plan = allocate(CurveSet(tuple(curve for curve, _ in curves), came={"energy": dearest}), wanted)
    return [order[k] for (_, order), k in zip(curves, plan.choice.tolist(), strict=True)]


def _published(name: str, site: Site) -> str:
    """The method of a published set; for SiLU and RMSNorm, which none of them has, the one of the same kind."""
    if site.function == "rms-norm":
        return "rms-norm"
    chosen = getattr(PUBLISHED[name], site.kind)
    if site.function != "silu":
        return chosen
    return "shift-silu" if chosen.startswith("shift") else "table-silu"
