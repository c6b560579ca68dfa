"""Which weights of a model can be spent on: matched units in execution order, and a reason for everything skipped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError
from fewer.core.unit import Unit
from fewer.models.computed import unusual
from fewer.models.running import Forward, batch_size, observe_outputs
from fewer.models.sparse import SparseConvolution

KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    SparseConvolution: "conv3d",
}
# transposed convolutions subclass the same private base as convolutions, not the classes above


@dataclass(frozen=True)
class Skipped:
    """Something that holds weights but is no unit, and why.

    Parameters
    ----------
    name : str
        Module name, or parameter name for a bare parameter.
    kind : str
        Class of the module.
    reason : str
        For people.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class MatchResult:
    """What :func:`match` found.

    Parameters
    ----------
    units : list of Unit
        In the order in which the forward pass first uses them.
    modules : dict of str to list of str
        Unit name -> names of all modules that hold its weight, the unit's own name first.
    skipped : list of Skipped
        In the order of the model's modules.
    """

    units: list[Unit]
    modules: dict[str, list[str]]
    skipped: list[Skipped]

    def table(self) -> list[dict[str, str]]:
        """Rows for a table: ``layer kind shape positions macs status``, units first.

        Examples
        --------
        >>> result = match(nn.Linear(4, 2), torch.zeros(1, 4))
        >>> result.table()[0]["status"]
        'matched'
        """
        rows = [
            {
                "layer": unit.name + (f" (= {', '.join(unit.aliases)})" if unit.aliases else ""),
                "kind": unit.kind + (f" groups={unit.groups}" if unit.groups > 1 else ""),
                "shape": "x".join(map(str, unit.shape)),
                "positions": f"{unit.positions:g}",
                "macs": f"{unit.macs:.3g}",
                "status": "matched",
            }
            for unit in self.units
        ]
        rows += [
            {
                "layer": s.name,
                "kind": s.kind,
                "shape": "",
                "positions": "",
                "macs": "",
                "status": f"skipped: {s.reason}",
            }
            for s in self.skipped
        ]
        return rows


def match(
    model: nn.Module,
    example_input: Any,
    forward: Forward | None = None,
    exclude: str | Sequence[str] = (),
) -> MatchResult:
    """Find the units of a model by running it once.

    Parameters
    ----------
    model : nn.Module
        Left as it is: parameters, training flags and hooks.
    example_input : Tensor, tuple or dict
        One batch; its first dimension is the number of samples.
    forward : callable, optional
        ``forward(model, example_input)``; by default the model is called with the tensor, ``*tuple`` or ``**dict``.
    exclude : str or sequence of str
        Shell patterns of module names to leave alone, for example ``"head"`` or ``"blocks.0.*"``.

    Returns
    -------
    MatchResult
        Tied weights are one unit; ``positions`` sums over calls and aliases.

    Raises
    ------
    FewerError
        When nothing matches, an exclude pattern matches nothing, a weight holds NaN or infinity,
        or the model does not run on the example.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    >>> [(unit.name, unit.positions) for unit in match(net, torch.zeros(1, 3, 8, 8)).units]
    [('0', 36.0), ('3', 1.0)]
    """
    names = _names_by_module(model)
    holders = _holders(model)
    groups, skipped = _candidates(names, holders)
    excluded = _excluded(groups, names, skipped, [exclude] if isinstance(exclude, str) else list(exclude))
    for primary in excluded:
        skipped[primary] = Skipped(primary, type(groups.pop(primary)[0]).__name__, "excluded by the user")

    outputs: dict[str, float] = {}
    group_of = {module: primary for primary, modules in groups.items() for module in modules}

    def count_positions(module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            primary = group_of[module]
            # a sparse convolution works on pairs of sites, however many outputs they make
            sites = module.positions if isinstance(module, SparseConvolution) else output.numel() / _out(module)
            if sites:
                outputs[primary] = outputs.get(primary, 0.0) + sites

    observe_outputs(model, example_input, list(group_of), count_positions, forward)

    units, modules = [], {}
    samples = batch_size(example_input)
    for primary, positions in outputs.items():
        members = groups[primary]
        weight = members[0].weight
        if not weight.is_meta and not torch.isfinite(weight).all():
            raise FewerError(
                f"the weight of layer {primary!r} holds NaN or infinity; repair or exclude that layer first"
            )
        aliases = tuple(name for member in members for name in names[member] if name != primary)
        kind = _kind(members[0])
        assert kind is not None
        units.append(
            Unit(primary, kind, tuple(weight.shape), getattr(members[0], "groups", 1), positions / samples, aliases)
        )
        modules[primary] = [primary, *aliases]
    for primary, members in groups.items():
        if primary not in outputs:
            skipped[primary] = Skipped(primary, type(members[0]).__name__, _uncalled_reason(model, primary))

    listed = list(skipped.values()) + _bare_parameters(holders, groups, skipped)
    order = {name: index for index, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    listed.sort(key=lambda s: order.get(s.name, order.get(s.name.rpartition(".")[0], len(order))))
    if not units:
        raise FewerError(_nothing_matched(listed))
    return MatchResult(units, modules, listed)


def mean_positions(
    model: nn.Module, matched: MatchResult, batches: Sequence[Any], forward: Forward | None = None
) -> MatchResult:
    """The same units with positions averaged over several batches, for inputs of different length.

    The work of a sparse convolution follows the occupancy of a scene, that of a text its length: one sample does not
    tell the cost of a layer.

    Parameters
    ----------
    model, matched, forward
        As given to and returned by :func:`match`.
    batches
        Inputs to average over.

    Examples
    --------
    >>> net = nn.Linear(2, 2)
    >>> matched = match(net, torch.zeros(1, 4, 2))
    >>> mean_positions(net, matched, [torch.zeros(1, 4, 2), torch.zeros(1, 6, 2)]).units[0].positions
    5.0
    """
    found = [{u.name: u.positions for u in match(model, one, forward).units} for one in batches]
    if not found:
        return matched
    units = []
    for unit in matched.units:
        mean = sum(one.get(unit.name, 0.0) for one in found) / len(found)
        units.append(replace(unit, positions=mean or unit.positions))
    return replace(matched, units=units)


def tied(model: nn.Module, unit: Unit) -> bool:
    """Whether the weight of a unit is held in several places, so that a change in one of them is none in the others.

    A block that is registered under a second name, as in MONAI's DynUNet, is the same object in both places: a layer in
    it may be cut or replaced.

    Parameters
    ----------
    model
        That the unit was matched in.
    unit
        With the other names of its weight.

    Examples
    --------
    >>> block = nn.Sequential(nn.Linear(2, 2))
    >>> twice = nn.ModuleDict({"a": block, "b": block})
    >>> tied(twice, Unit("a.0", "linear", (2, 2), aliases=("b.0",)))
    False
    >>> layers = nn.Sequential(block[0], block[0])
    >>> tied(layers, Unit("0", "linear", (2, 2), aliases=("1",)))
    True
    """

    def place(name: str) -> tuple[nn.Module, str]:
        parent, _, own = name.rpartition(".")
        return model.get_submodule(parent), own

    holder, own = place(unit.name)
    return any(place(name)[0] is not holder or place(name)[1] != own for name in unit.aliases)


def _kind(module: nn.Module) -> str | None:
    return next((kind for cls, kind in KINDS.items() if isinstance(module, cls)), None)


def _out(module: nn.Module) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels  # type: ignore[return-value]


def _names_by_module(model: nn.Module) -> dict[nn.Module, list[str]]:
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        names[module].append(name)
    return names


def _holders(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, str]]]:
    """Parameter id -> every (module name, module, attribute) that holds it."""
    holders: dict[int, list[tuple[str, nn.Module, str]]] = defaultdict(list)
    for name, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                holders[id(parameter)].append((name, module, attribute))
    return holders


def _candidates(
    names: dict[nn.Module, list[str]], holders: dict[int, list[tuple[str, nn.Module, str]]]
) -> tuple[dict[str, list[Any]], dict[str, Skipped]]:
    groups: dict[str, list[Any]] = {}
    primary_of: dict[int, str] = {}  # parameter id -> unit name
    skipped: dict[str, Skipped] = {}
    memory = _shared_memory(holders)
    for module, (name, *_) in names.items():
        if _kind(module) is None:
            continue
        weight = module._parameters.get("weight")
        reason = None
        if weight is None:
            reason = "its weight is computed from other tensors (a parametrization, weight_norm or a pruning mask)"
        elif isinstance(weight, UninitializedTensorMixin):
            reason = "its weight is not initialised yet (lazy layer); run the model once before"
        elif not weight.is_floating_point():
            reason = f"its weight is {weight.dtype}, not floating point"
        elif id(weight) in primary_of:
            groups[primary_of[id(weight)]].append(module)
            continue
        elif other := next((h for h in holders[id(weight)] if _kind(h[1]) is None or h[2] != "weight"), None):
            reason = f"its weight is shared with {other[0] or 'the model'} ({type(other[1]).__name__})"
        elif id(weight) in memory:
            reason = f"its weight shares memory with {memory[id(weight)]}"
        else:
            reason = unusual(module) or None
        if reason is not None:
            skipped[name] = Skipped(name, type(module).__name__, reason)
            continue
        assert weight is not None
        primary_of[id(weight)] = name
        groups[name] = [module]
    return groups, skipped


def _shared_memory(holders: dict[int, list[tuple[str, nn.Module, str]]]) -> dict[int, str]:
    """Parameter id -> name of a different parameter object that lives in the same storage."""
    by_storage: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for key, ((name, module, attribute), *_) in holders.items():
        parameter = module._parameters[attribute]
        if parameter is None or parameter.is_meta or isinstance(parameter, UninitializedTensorMixin):
            continue
        if parameter.layout == torch.strided and parameter.numel():
            by_storage[parameter.untyped_storage().data_ptr()].append((key, f"{name}.{attribute}".lstrip(".")))
    shared: dict[int, str] = {}
    for members in by_storage.values():
        for index, (key, _) in enumerate(members):
            if len(members) > 1:
                shared[key] = members[index - 1][1]
    return shared


def _excluded(
    groups: dict[str, list[Any]], names: dict[nn.Module, list[str]], skipped: dict[str, Skipped], patterns: list[str]
) -> list[str]:
    """Primary names of the groups that a pattern hits under any of their names."""
    every = {primary: [name for member in members for name in names[member]] for primary, members in groups.items()}
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [primary for primary in groups if any(fnmatchcase(name, pattern) for name in every[primary])]
        if not hits and not any(fnmatchcase(name, pattern) for name in skipped):
            known = [*groups, *skipped]
            near = get_close_matches(pattern, known, 1, 0.4)
            hint = f"the nearest layer is {near[0]!r}" if near else f"layers are, for example, {', '.join(known[:3])}"
            raise FewerError(f"the exclude pattern {pattern!r} matches no layer; {hint}")
        found.update(dict.fromkeys(hits))
    return list(found)


def _uncalled_reason(model: nn.Module, name: str) -> str:
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return "nn.MultiheadAttention uses its weight without calling it"
    return "never called in the forward pass of the example"


def _bare_parameters(
    holders: dict[int, list[tuple[str, nn.Module, str]]], groups: dict[str, list[Any]], skipped: dict[str, Skipped]
) -> list[Skipped]:
    """Parameters of two or more dimensions that belong to no unit and no skipped layer."""
    grouped = {id(member.weight) for members in groups.values() for member in members}
    rest = []
    for key, holding in holders.items():
        name, module, attribute = holding[0]
        parameter = module._parameters[attribute]
        if key in grouped or any(n in skipped and a == "weight" for n, _, a in holding) or parameter is None:
            continue
        cls = type(module).__name__
        if isinstance(parameter, UninitializedTensorMixin):
            rest.append(Skipped(f"{name}.{attribute}".lstrip("."), cls, "not initialised yet (lazy layer)"))
        elif parameter.ndim >= 2:
            if attribute == "weight":
                rest.append(Skipped(name, cls, f"{cls} is not supported yet"))
            else:
                full = f"{name}.{attribute}".lstrip(".")
                rest.append(Skipped(full, cls, f"a parameter of {cls} that belongs to no supported layer"))
    return rest


def _nothing_matched(skipped: list[Skipped]) -> str:
    if not skipped:
        return "the model has no prunable layer: it holds no weight of two or more dimensions"
    reasons = Counter(s.reason for s in skipped).most_common(2)
    told = "; ".join(f"{count} skipped because: {reason}" for reason, count in reasons)
    return f"the model has no prunable layer (Linear, Conv1d, Conv2d or Conv3d that the example reaches): {told}"
