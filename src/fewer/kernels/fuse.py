"""Finds convolutional stages in a model by tracing it, and swaps each run of them for one native call."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fewer.kernels.chains import Chain
from fewer.kernels.plain import padding_of
from fewer.kernels.stages import NativeChain, Stage, Unit
from fewer.kernels.transformer import activation_of

_HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)  # fmt: skip
_ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True)
class Run:
    """Stages that follow each other in a traced model.

    Attributes
    ----------
    stages : tuple of Stage
        In order.
    source : fx.Node
        Whose value the first stage reads.
    nodes : tuple of fx.Node
        What the stages replace, in order; the last one is the result.
    """

    stages: tuple[Stage, ...]
    source: fx.Node
    nodes: tuple[fx.Node, ...]

    def plain(self, traced: fx.GraphModule) -> fx.GraphModule:
        """The replaced part of the model as a module of its own."""
        graph = fx.Graph()
        copies = {self.source: graph.placeholder("x")}
        for node in self.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[self.nodes[-1]])
        return fx.GraphModule(traced, graph)


class _Finder:
    def __init__(self, traced: fx.GraphModule) -> None:
        self.modules = dict(traced.named_modules())
        self.graph = traced.graph
        calls = [n.target for n in self.graph.nodes if n.op == "call_module"]
        self.shared = {name for name in calls if calls.count(name) > 1}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" and len(node.args) == 1 else None

    def follow(self, node: fx.Node) -> fx.Node | None:
        """The only user of a node."""
        return next(iter(node.users)) if len(node.users) == 1 else None

    def unit(self, node: fx.Node | None) -> tuple[Unit, list[fx.Node]] | None:
        """The convolution at a node with what follows it, and the nodes that it takes."""
        if node is None or node.target in self.shared:
            return None
        conv = self.module(node)
        if type(conv) is not nn.Conv2d or padding_of(conv) is not None:
            return None
        parts: list[nn.Module] = [conv]
        nodes = [node]
        norm = False
        while (after := self.follow(nodes[-1])) is not None:
            module = self.module(after)
            if isinstance(module, nn.Identity | nn.Dropout):
                nodes.append(after)
                continue
            # by type, not isinstance: timm's BatchNorm with an activation inside is another function
            if type(module) is nn.BatchNorm2d and not norm and module.running_mean is not None:
                norm = True
            elif module is None or activation_of(module) is None:
                break
            parts.append(module)
            nodes.append(after)
            if type(module) is not nn.BatchNorm2d:
                break
        chain = Chain(str(node.target), tuple(parts), ())
        unit = Unit(chain.name, chain.folded(), chain.activation)
        return (unit, nodes) if unit.kind else None

    def stage(self, source: fx.Node, first: fx.Node) -> tuple[Stage, list[fx.Node]] | None:
        """The stage whose first convolution is at ``first``."""
        found = self.unit(first)
        if found is None:
            return None
        unit, nodes = found
        expand: Unit | None = None
        middle: Unit | None = None
        if unit.kind != "depthwise":
            after = self.unit(self.follow(nodes[-1]))
            if after and after[0].kind == "depthwise":
                expand, (unit, more) = unit, after
                nodes = nodes + more
            elif unit.kind == "stem":
                return None
        if unit.kind == "depthwise":
            after = self.unit(self.follow(nodes[-1]))
            if after is None or after[0].kind != "pointwise":
                return None
            middle, (unit, more) = unit, after
            nodes = nodes + more
        add = self.follow(nodes[-1])
        residual = (
            add is not None
            and add.op == "call_function"
            and add.target in _ADDITIONS
            and len(add.args) == 2
            and not add.kwargs
            and set(add.args) == {source, nodes[-1]}
            and (expand is None or expand.kind == "pointwise")
            and (middle is None or middle.conv.stride in (1, (1, 1)))
        )
        if residual:
            assert add is not None
            nodes = [*nodes, add]
        return Stage(expand, middle, unit, residual), nodes

    def runs(self) -> list[Run]:
        taken: set[fx.Node] = set()
        found: list[Run] = []
        for node in self.graph.nodes:
            if node in taken or self.module(node) is None or not isinstance(node.args[0], fx.Node):
                continue
            begin = source = node.args[0]
            stages: list[Stage] = []
            nodes: list[fx.Node] = []
            first: fx.Node | None = node
            while first is not None and first.args and first.args[0] is source:
                step = self.stage(source, first)
                if step is None or (stages and step[0].units[0].kind == "stem"):
                    break
                stages.append(step[0])
                nodes += step[1]
                source = nodes[-1]
                users = list(source.users)
                first = next((u for u in users if self.module(u) is not None), None)
                # what a stage of the inside gives may be read by the next stage only
                ahead = self.stage(source, first) if first is not None else None
                allowed = {first} | ({ahead[1][-1]} if ahead is not None and ahead[0].residual else set())
                if ahead is None or not set(users) <= allowed:
                    break
            if sum(len(s.units) for s in stages) > 1:
                found.append(Run(tuple(stages), begin, tuple(nodes)))
                taken |= set(nodes)
        return found


def trace(model: nn.Module) -> fx.GraphModule | None:
    """The model as a graph, or None where its Python code cannot be traced."""
    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # whatever a stranger's forward pass raises under tracing
        return None
    for kind in _HOOKS:  # those of the parts are in the graph, those of the whole model are not
        setattr(traced, kind, copy.copy(getattr(model, kind)))
    return traced


def find_runs(traced: fx.GraphModule) -> list[Run]:
    """All runs of stages with at least two convolutions.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1))
    >>> [len(run.stages) for run in find_runs(fx.symbolic_trace(net))]
    [1]
    """
    return _Finder(traced).runs()


def swap(traced: fx.GraphModule, run: Run, name: str, chain: NativeChain) -> None:
    """Replace a run in a traced model by its native form, as the module ``name``."""
    traced.add_submodule(name, chain)
    last = run.nodes[-1]
    with traced.graph.inserting_after(last):
        node: Any = traced.graph.call_module(name, (run.source,))
    last.replace_all_uses_with(node)
    for old in reversed(run.nodes):
        traced.graph.erase_node(old)
    traced.delete_all_unused_submodules()
    traced.recompile()
