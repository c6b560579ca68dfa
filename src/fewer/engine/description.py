"""A run in the words and numbers of its report: units, curves, timed layers, sensing, limits. Nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewer.core.allocation.power import power_shares
from fewer.core.reading import nested
from fewer.cost.stopwatch import NOISY
from fewer.engine.deploy import Deployed
from fewer.engine.settings import Settings
from fewer.reports.numbers import percent, significant
from fewer.runtimes.names import RUNTIMES

if TYPE_CHECKING:
    from fewer.engine.approximate import Approximated
    from fewer.engine.evidence import Evidence

__all__ = [
    "curves",
    "flat",
    "frames",
    "integers",
    "latency",
    "limits",
    "pixels",
    "power",
    "reached",
    "runtimes",
    "sensing",
    "steady_words",
    "tokens",
    "units",
]

_MODELLED = ("cycles", "energy")
"""What an accelerator on paper takes."""

UNITS_OF_MEASURE = {
    "weights": "weights",
    "flops": "FLOPs",
    "macs": "MACs",
    "size": "bytes",
    "latency": "ms",
    "energy": "J",
    "cycles": "cycles (modelled)",
}


def reached(e: Evidence) -> list[dict[str, Any]]:
    fixed = e.sensed.curves.fixed
    totals = {"weights": 0.0, "macs": fixed["macs"], "flops": fixed["flops"]}
    for unit in e.sensed.curves.units:
        kept = float(e.masks[unit.name].sum())
        totals["weights"] += kept
        totals["macs"] += kept * unit.positions
        totals["flops"] += 2 * kept * unit.positions
    positions = {u.name: u.positions for u in e.prepared.matched.units}
    for unit in e.sensed.curves.units:
        # attention's own products, with the heads that stay, on the tokens that are left
        macs = e.prepared.couplings.between.get(unit.name, 0.0) * (unit.positions / positions[unit.name]) ** 2
        left = float(e.masks[unit.name].flatten(1).any(0).double().mean()) if macs else 0.0
        totals["macs"] += left * macs
        totals["flops"] += 2 * left * macs
    totals["size"] = e.plan.cost["size"]  # replaced by the file's real size once it is written
    for metric in ("latency", "energy", "cycles"):
        if metric in e.plan.cost:
            totals[metric] = e.plan.cost[metric]
    if e.deployed is not None:
        totals["latency"] = e.deployed.measured_ms
    curves = e.sensed.curves
    return [
        {
            "budget": str(b),
            "metric": b.metric,
            "limit": float(b.limit(curves)),
            "dense": curves.dense(b.metric),
            "reached": totals[b.metric],
            "unit": UNITS_OF_MEASURE[b.metric],
        }
        for b in e.budgets
    ]


def units(e: Evidence) -> list[dict[str, Any]]:
    rows = []
    planned = e.plan.options()
    modelled = [
        m for m in _MODELLED if any(b.metric == m for b in e.budgets) or (m == "cycles" and e.settings.accelerator)
    ]
    for curve, k in zip(e.sensed.curves.curves, e.allocation.choice, strict=True):
        unit, mask = curve.unit, e.masks[curve.unit.name]
        kept = float(mask.sum())
        option = planned[unit.name]
        rows.append(
            {
                "name": unit.name,
                "kind": unit.kind,
                "shape": list(unit.shape),
                "option": str(option),
                "pattern": option.pattern,
                "sparsity": 1 - kept / unit.numel,
                "precision": option.precision,
                "kept_weights": kept,
                "weights": float(unit.numel),
                "flops": 2 * kept * unit.positions,
                "dense_flops": 2 * unit.macs,
                "distortion": float(curve.distortion[k]),
                "modelled": {
                    m: [float(curve.cost[m][0]), float(curve.cost[m][k])] for m in modelled if m in curve.cost
                },
            }
        )
    return rows


def curves(e: Evidence) -> list[dict[str, Any]]:
    rows = []
    for c, k in zip(e.sensed.curves.curves, e.allocation.choice, strict=True):
        # of several patterns and precisions the one that was chosen, or the first: one curve is what a plot can show
        cut = [o for o in c.options if not o.is_dense]
        like = c.options[k] if not c.options[k].is_dense or not cut else cut[0]
        keep = [
            i
            for i, o in enumerate(c.options)
            if i in (0, k) or (o.family, o.precision) == (like.family, like.precision)
        ]
        keep.sort(key=lambda i: (c.options[i].sparsity, i))
        rows.append(
            {
                "unit": c.unit.name,
                "sparsity": [c.options[i].sparsity for i in keep],
                "distortion": [float(c.distortion[i]) for i in keep],
                "chosen": keep.index(int(k)),
            }
        )
    return rows


def runtimes(device: Mapping[str, Any]) -> str:
    """What ran the two models, as the end of a note.

    Examples
    --------
    >>> runtimes({"runtime": "openvino", "against": "onnxruntime"})
    '; with OpenVINO, the dense model with onnxruntime'
    >>> runtimes({})
    ''
    """
    if "against" not in device:
        return ""
    return f"; with {RUNTIMES[device['runtime']].label}, the dense model with {RUNTIMES[device['against']].label}"


def latency(e: Evidence, deployed: Deployed) -> dict[str, Any]:
    facts = e.sensed.curves.meta["device"]
    return {
        "dense_ms": deployed.dense_ms,
        "predicted_ms": deployed.predicted_ms,
        "measured_ms": deployed.measured_ms,
        "spread": deployed.spread,
        "batch": e.settings.deploy_batch,
        "threads": facts["device"]["threads"],
        "device": str(facts["device"]["cpu"]),
        "plans": [[t["predicted"], t["measured"]] for t in e.tried],
        "layers": [
            {
                "name": row.name,
                "kind": row.kind,
                "backend": row.backend,
                "precision": row.precision,
                "before_ms": None if math.isnan(row.ms_before) else row.ms_before,
                "after_ms": None if math.isnan(row.ms_after) else row.ms_after,
                "reason": row.reason,
            }
            for row in deployed.layers
        ],
    }


def tokens(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """How many tokens are left in the last block."""
    whole = tokens["tokens"]
    return {
        "name": "tokens in the last block",
        "value": whole - sum(tokens["amounts"].values()),
        "dense": whole,
        "higher_is_better": False,
        "note": f"schedule '{tokens['name']}', of {len(tokens['tried'])} tried; merging alone: distortion "
        f"{tokens['distortion']:.3g} on the images that distortion is measured on",
    }


def pixels(pixels: Mapping[str, Any]) -> dict[str, Any]:
    """How many pixels of the longer side are left."""
    return {
        "name": "pixels of the longer side",
        "value": pixels["kept"],
        "dense": pixels["of"],
        "higher_is_better": False,
        "note": f"the model makes its images smaller itself; {len(pixels['tried'])} sizes tried; that alone: "
        f"distortion {pixels['distortion']:.3g} on the images that distortion is measured on",
    }


def frames(frames: Mapping[str, Any]) -> dict[str, Any]:
    """How many frames of a sequence are left."""
    return {
        "name": "frames of a sequence",
        "value": frames["kept"],
        "dense": frames["of"],
        "higher_is_better": False,
        "note": f"the model leaves out the others itself, 1 of {frames['every']} stays; that alone: distortion "
        f"{frames['distortion']:.3g} on the sequences that distortion is measured on",
    }


def integers(made: Approximated) -> dict[str, Any]:
    """What integers in place of functions change, beyond what the cut does."""
    kinds = sorted({row["method"] for row in made.rows})
    return {
        "name": "change by integer functions",
        "value": made.distortion,
        "dense": 0.0,
        "higher_is_better": False,
        "note": f"{len(made.rows)} places ({', '.join(kinds)}), simulated in torch"
        f"{', planned together with the layers' if made.joint else ''}; of the output on {made.images} of "
        f"the images that distortion is measured on, where the places one by one add up to {made.predicted:.3g}",
    }


def power(e: Evidence) -> dict[str, Any]:
    """What the plan leaves of the power term."""
    curves = e.sensed.curves
    drawn = sum(float(p[k]) for p, k in zip(power_shares(curves), e.allocation.choice, strict=True))
    kind = "modelled energy" if "energy" in curves.metrics else "LPViT's linear count, not a measurement"
    return {"name": "power term", "value": drawn, "dense": 1.0, "higher_is_better": False, "note": kind}


def sensing(e: Evidence) -> dict[str, Any]:
    facts, curves = e.sensed.facts, e.sensed.curves
    options = sum(len(c.options) - 1 for c in curves.curves)
    whole = facts.get("whole", "")
    return {
        "forwards": float(facts["passes"]),
        "paper_forwards": float(101 * len(curves) * e.prepared.apart[0]),
        "seconds": facts["seconds"],
        "note": f"{e.settings.estimator}: {options} options of {len(curves)} layers on {e.prepared.apart[0]} images; "
        "passes are of one image, forward or backward, and may start at the changed layer. The paper's number is that "
        "of 101 ratios for each layer and image."
        + (f" Passes ran through the whole model, because {whole}." if whole else ""),
    }


def flat(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json")
    return {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in values.items()}


_REFUSED = 0.25  # of a repair kept: less is called refused


def doubts(e: Evidence) -> list[str]:
    """What images of other files have not borne out: repairs that were not kept."""
    kept = e.believed
    refused = [name for name, share in kept.items() if share < _REFUSED]
    if e.plan.method in ("auto:magnitude", "auto:unrepaired", "auto:bare_lamp"):
        return ["No weight was repaired: on images that nothing was fitted to, the repaired models were worse."]
    if not refused:
        return []
    named = ", ".join(refused[:3]) + (", ..." if len(refused) > 3 else "")
    return [
        f"The repair of {len(refused)} of {len(kept)} layers was not kept, or hardly: on images of other files it did "
        f"not help ({named})."
    ]


_STEADY = 0.8
"""Share of the output that is the same for every image, from which on the report says so."""


def steady_words(steady: float, distortion: float) -> list[str]:
    """What a distortion means where most of the output is the same for every image.

    Examples
    --------
    >>> steady_words(0.96, 0.01)[0].partition(": ")[2]
    'beside what differs between images it is 0.250.'
    >>> steady_words(0.3, 0.01)
    []
    """
    if not _STEADY <= steady < 1:
        return []
    return [
        f"{percent(steady)} of the dense model's output is the same for every image, so that the distortion looks "
        f"small: beside what differs between images it is {significant(distortion / (1 - steady))}."
    ]


def limits(e: Evidence) -> list[str]:
    unlabelled = "" if e.quality is not None else ": accuracy on your task was not measured"
    limits = [
        f"Distortion and {'agreement' if e.prepared.loaded.task == 'classify' else 'similarity'} are against the dense "
        f"model, without labels{unlabelled}.",
        f"Held-out numbers come from {len(e.prepared.heldout)} images of the same source as the calibration images.",
    ]
    limits += doubts(e)
    if e.deployed is None:
        limits.append("Fewer weights are not faster by themselves: no time was measured here.")
    elif e.deployed.spread > NOISY:
        limits.append("The machine was busy while the model was timed: the spread of its latency is wide.")
    if "energy" in e.plan.cost:
        limits.append(f"Energy is not measured: it is {e.sensed.curves.meta['device']['energy']}.")
    if e.deployed is None and e.settings.measure and any(o.precision != "fp32" for o in e.plan.options().values()):
        limits.append(
            "The numbers are of layers that round their inputs to the precisions of the plan, as its costs have it; "
            "run.model in torch rounds weights alone."
        )
    if warning := nested(e.sensed.curves.meta, "device", "warning"):
        limits.append(f"Times are predicted, not measured: {warning}.")
    if e.shrunk is not None:
        limits += [f"The channels removed before {n} stay as zeros: {why}." for n, why in e.shrunk.refused.items()]
    if e.settings.data_free is not None:
        limits.append("The model was calibrated without real images.")
    if len(e.prepared.calibration) < 16:
        limits.append("Very few calibration images: repaired weights may not fit other images.")
    return limits
