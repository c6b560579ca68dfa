"""From a module of torch to its graph of linear operations and activations."""

from __future__ import annotations

import inspect
import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.left import left_at_the_end
from fewer.private.network import Call, Held, Network, Value, filled, places_of
from fewer.private.pointwise import Point, Points

__all__ = ["ACTIVATIONS", "LINEAR", "MOVES", "read_network"]

aten = torch.ops.aten


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATIONS = _words(
    """relu relu6 gelu silu tanh sigmoid elu leaky_relu hardtanh hardswish hardsigmoid softplus mish selu celu clamp
    clip clamp_min clamp_max abs exp sin cos square pow softsign log_sigmoid hardshrink softshrink tanhshrink erf erfc
    reciprocal sqrt rsqrt log log1p expm1 atan asinh sinh cosh"""
)
"""Functions of each number, which become polynomials."""

MOVES = _words(
    """view reshape _unsafe_view flatten unflatten permute transpose t squeeze unsqueeze cat concat stack slice select
    narrow chunk split split_with_sizes unbind getitem constant_pad_nd pad expand expand_as pixel_shuffle
    pixel_unshuffle channel_shuffle roll flip movedim swapaxes view_as reshape_as ravel numpy_T"""
)
"""Operations that put numbers elsewhere."""

_SAME = _words(
    """dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone alias detach to _to_copy
    lift_fresh_copy lift_fresh type_as float double"""
)
"""Operations that change nothing when a network is used."""

_PLANES = _words(
    """avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d upsample_nearest1d upsample_linear1d
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d"""
)
"""Operations that treat every channel alike."""

_WEIGHTED = _words("conv1d conv2d convolution conv_transpose1d conv_transpose2d linear matmul mm addmm")

LINEAR = MOVES | _PLANES | _WEIGHTED | _words("scale_shift mean sum add sub rsub mul div neg")
"""Operations that a matrix can stand for."""

_DIVIDES = "divides by numbers that depend on the image; BatchNorm has a place in a circuit"
_MULTIPLIES = "multiplies numbers that depend on the image with each other, which circuits do not so far"
_REASONS = {
    **dict.fromkeys(_words("softmax log_softmax"), "is a softmax, which no circuit has but at the end"),
    **dict.fromkeys(_words("layer_norm group_norm instance_norm rms_norm local_response_norm"), _DIVIDES),
    "_native_batch_norm_legit": "is a BatchNorm without statistics of its own, which no circuit has",
    "avg_pool3d": "averages over channels or three axes, which no circuit does so far",
    **dict.fromkeys(_words("mul div matmul mm bmm baddbmm scaled_dot_product_attention"), _MULTIPLIES),
}


def scale_shift(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """What a BatchNorm does when a network is used."""
    return x * factor + shift


def read_network(model: nn.Module, example: Tensor) -> Network:
    """The graph of a network in double precision.

    BatchNorm becomes a factor and a constant of each channel. Maximum pooling becomes the average of its window, in
    front of the activation: another network near the first one, whose accuracy is won back by
    :func:`fewer.private.adapt.adapt` and has to be measured again. A softmax or a sigmoid at the end is left to whoever
    reads the results. Functions of each number may be written out, such as ``x * sigmoid(x)``.

    Parameters
    ----------
    model
        Any network of linear operations (convolutions, linear layers, BatchNorm, pooling, sums, concatenations, changes
        of shape) and functions of each number.
    example
        One input, with a leading 1.

    Raises
    ------
    FewerError
        For an operation that has no place in a circuit, or a network whose graph cannot be read.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    >>> found = read_network(net, torch.zeros(1, 1, 4, 4))
    >>> [call.kind for call in found.calls], found.averaged
    (['conv2d', 'avg_pool2d', 'activation', 'view', 'linear'], ('2',))
    """
    program = _exported(model, example)
    reader = _Reader(tuple(example.shape[1:]))
    given = {
        **program.graph_signature.inputs_to_parameters,
        **program.graph_signature.inputs_to_buffers,
        **program.graph_signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        if node.op == "placeholder":
            reader.enter(node, _state(program, given[node.name]) if node.name in given else None)
        elif node.op == "call_function":
            reader.take(node)
        elif node.op == "output":
            return reader.finish(node, type(model).__name__)
    raise FewerError(f"{type(model).__name__} gives no result")


def _refuse_more_inputs(model: nn.Module) -> None:
    """A circuit takes one image, and says so before the compiler of torch does in words of its own."""
    asked = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in asked if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1:
        raise FewerError(
            f"{type(model).__name__} takes {len(needed)} inputs ({', '.join(needed)}), and a circuit takes one image; "
            "wrap it in a module that takes one"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs and prints of a graph that it cannot read: it is told in one sentence."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    was, log.disabled = log.disabled, True
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        log.disabled = was


def _exported(model: nn.Module, example: Tensor) -> Any:
    _refuse_more_inputs(model)
    was = [(m, m.training) for m in model.modules()]
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.export.export(model.eval(), (example.clone(),), strict=False)
            return program.run_decompositions({})
    except FewerError:
        raise
    except Exception as error:  # whatever the compiler of torch raises
        first = str(error).strip().splitlines()
        if "DataDependent" in type(error).__name__:
            raise FewerError(
                f"{type(model).__name__} decides by the numbers of an image what it computes (an if, a loop or a "
                "choice of places), and a circuit computes the same for every image"
            ) from None
        raise FewerError(
            f"the graph of {type(model).__name__} cannot be read ({type(error).__name__}: {first[0] if first else ''})"
        ) from None
    finally:
        for module, training in was:
            module.training = training


def _state(program: Any, name: str) -> Tensor:
    found = program.state_dict.get(name)
    found = program.constants[name] if found is None else found
    return found.detach()


@dataclass
class _Reader:
    """What has been read so far."""

    shape: tuple[int, ...]
    calls: list[Call] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)  # of nodes by name: a Value, a Held, or a plain number
    entry: str = ""
    maxima: set[str] = field(default_factory=set)
    called: dict[str, str] = field(default_factory=dict)  # of activations: the kind of the operation
    points: Points = field(init=False)

    def __post_init__(self) -> None:
        self.points = Points(ACTIVATIONS, self.tensors)

    def enter(self, node: Any, tensor: Tensor | None) -> None:
        """An input of the graph."""
        if tensor is not None:
            self.known[node.name] = self._held(node.name, tensor)
        elif self.entry:
            raise FewerError("a circuit takes one image; this network has several inputs")
        else:
            self.entry = node.name
            self.points.shapes[node.name] = (1, *self.shape)
            self.known[node.name] = Value(node.name)

    def _held(self, key: str, tensor: Tensor) -> Held:
        self.tensors[key] = tensor.double() if tensor.is_floating_point() else tensor
        return Held(key)

    def _resolved(self, args: Any) -> Any:
        if isinstance(args, torch.fx.Node):
            return self.known[args.name]
        if isinstance(args, (list, tuple)):
            return [self._resolved(a) for a in args] if isinstance(args, list) else tuple(map(self._resolved, args))
        return args

    def take(self, node: Any) -> None:
        """One operation."""
        args = self._resolved(tuple(node.args))
        named = {k: self._resolved(v) for k, v in node.kwargs.items() if k not in ("dtype", "device", "layout")}
        if not places_of([args, list(named.values())], Value):
            self.known[node.name] = self._constant(node, args, named)
            return
        kind, name = _kind_of(node.target), _name_of(node)
        if node.meta.get("val") is None and not node.users:
            return  # a check that gives nothing
        if kind in _SAME:
            self.known[node.name] = args[0]
            return
        whole = self.points.read(node.name, kind, node.target, args, named, _shape_of(node))
        if whole is not None:
            self._whole(node, name, whole)
            return
        for value in places_of(args, Value):
            if value.key in self.points.hidden:
                raise FewerError(f"{name!r} reads what {self.points.hidden[value.key]} gives, which no circuit has")
        if kind in ("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"):
            self._norm(node, name, args)
        elif kind == "getitem" and args[0].key in {c.key for c in self.calls if c.kind in _FIRST} | self.maxima:
            self.known[node.name] = args[0]  # operations of which only the first result counts
        elif kind in _MAXIMA or _over_places(node, kind, args):
            self._maximum(node, name, kind, args)
        elif kind == "prelu" and isinstance(args[1], Held):
            self._prelu(node, name, args)
        elif kind in ACTIVATIONS and isinstance(args[0], Value) and not places_of(args[1:], (Value, Held)):
            rest, target = args[1:], node.target
            self._activation(node, name, args[0], lambda x: target(x, *rest, **named))
            self.called[node.name] = kind
        else:
            self._linear(node, name, kind, args, named)

    def _constant(self, node: Any, args: Any, named: dict[str, Any]) -> Any:
        with torch.no_grad():
            found = node.target(
                *filled(args, {}, self.tensors), **{k: filled(v, {}, self.tensors) for k, v in named.items()}
            )
        return self._held(node.name, found) if isinstance(found, Tensor) else found

    def _add(self, key: str, name: str, kind: str, target: Any, args: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.calls.append(Call(key, name, kind, target, args, shape))
        self.known[key] = Value(key)

    def _activation(self, node: Any, name: str, x: Value, function: Callable[[Tensor], Tensor]) -> None:
        self._add(node.name, name, "activation", function, (x,), _shape_of(node))
        self.activations[node.name] = function

    def _whole(self, node: Any, name: str, point: Point) -> None:
        """A function of each number that is written out in several operations."""
        if node.name in self.points.hidden:
            self.known[node.name] = Value(node.name)
        else:
            self._activation(node, name, point.root, point.function)

    def _norm(self, node: Any, name: str, args: Any) -> None:
        x, weight, bias, mean, variance = args[:5]
        if not isinstance(mean, Held) or not isinstance(variance, Held):
            raise FewerError(f"{name!r} is a BatchNorm without statistics of its own, which no circuit has")
        eps = float(args[7] if len(args) > 8 else args[-1] if _kind_of(node.target) != "batch_norm" else args[7])
        factor = (self.tensors[variance.key] + eps).rsqrt()
        factor = factor * self.tensors[weight.key] if isinstance(weight, Held) else factor
        shift = -self.tensors[mean.key] * factor
        shift = shift + self.tensors[bias.key] if isinstance(bias, Held) else shift
        shape = _shape_of(node)
        plane = (1, -1, *[1] * (len(shape) - 2))
        numbers = (self._held(f"{node.name}.{k}", t.reshape(plane)) for k, t in (("factor", factor), ("shift", shift)))
        self._add(node.name, name, "scale_shift", scale_shift, (x, *numbers), shape)

    def _prelu(self, node: Any, name: str, args: tuple[Any, ...]) -> None:
        """``slope * x + (1 - slope) * relu(x)``: one function of each number for all channels."""
        x, slope = args[0], self.tensors[args[1].key]
        shape = _shape_of(node)
        slope = slope.reshape(1, -1, *[1] * (len(shape) - 2)) if len(shape) > 1 else slope
        low, rest = (self._held(f"{node.name}.{k}", t) for k, t in (("slope", slope), ("rest", 1 - slope)))
        key = node.name
        self._add(f"{key}.relu", name, "activation", torch.relu, (x,), shape)
        self.activations[f"{key}.relu"] = torch.relu
        self._add(f"{key}.low", name, "mul", torch.mul, (x, low), shape)
        self._add(f"{key}.high", name, "mul", torch.mul, (Value(f"{key}.relu"), rest), shape)
        self._add(key, name, "add", torch.add, (Value(f"{key}.low"), Value(f"{key}.high")), shape)

    def _maximum(self, node: Any, name: str, kind: str, args: Any) -> None:
        """The average in place of the maximum; where it stands in front of an activation is decided at the end."""
        shape = _shape_of(node)
        target: Any
        given: Any
        if kind in ("amax", "max"):
            new, target, given = "mean", aten.mean.dim, (args[0], _listed(args[1]), len(args) > 2 and bool(args[2]))
        elif kind.startswith("adaptive"):
            new = kind.replace("max", "avg")
            target, given = getattr(aten, new).default, args[:2]
        else:
            if len(args) > 4 and any(d != 1 for d in _listed(args[4])):
                raise FewerError(f"{name!r}: a maximum over places that are not side by side has no place in a circuit")
            new = kind.replace("max", "avg").replace("_with_indices", "")
            ceil = bool(args[5]) if len(args) > 5 else False
            stride = args[2] if len(args) > 2 and _listed(args[2]) else args[1]
            padding = args[3] if len(args) > 3 else 0
            target, given = getattr(aten, new).default, (args[0], args[1], stride, padding, ceil, False)
            if not new.endswith("2d"):
                given = (args[0], _listed(args[1]), _listed(stride), _listed(padding), ceil, False)
        self._add(node.name, name, new, target, tuple(given), shape)
        self.maxima.add(node.name)

    def _linear(self, node: Any, name: str, kind: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if kind in ("softmax", "_softmax", "log_softmax", "_log_softmax"):
            kind = kind.lstrip("_")
        several = len(places_of(args, Value)) > 1
        product = kind in _WEIGHTED or kind in ("mul", "div")
        wrong = (several and product) or (kind == "div" and not isinstance(args[0], Value))
        wrong = wrong or named.get("rounding_mode") is not None
        if (kind in LINEAR and not wrong) or (kind in ("softmax", "log_softmax") and not several):
            # a view would depend on how numbers lie in memory
            target = aten.reshape.default if kind in ("view", "_unsafe_view") else node.target
            call = (lambda *given: target(*given, **named)) if named else target
            self._add(node.name, name, kind, call, args, _shape_of(node))
            return
        reason = _REASONS.get(kind, f"computes {kind}, which no circuit has")
        raise FewerError(
            f"{name!r} {reason}; known are linear operations, BatchNorm, pooling and functions of each number"
        )

    def finish(self, node: Any, what: str) -> Network:
        """The network."""
        results = places_of(self._resolved(tuple(node.args)), Value)
        if len(results) != 1:
            raise FewerError(
                f"{what} gives {len(results)} results that depend on the image; a circuit gives one: wrap the network "
                "so that it returns one of them, or torch.cat of all, each flattened from dimension 1 on"
            )
        calls, result, left = left_at_the_end(self.calls, str(results[0].key), self.called, MOVES)
        calls = _needed(calls, result)
        for call in calls:
            if call.kind in ("softmax", "log_softmax"):
                raise FewerError(f"{call.name!r} {_REASONS['softmax']}")
        if not any(c.kind in _WEIGHTED for c in calls):
            raise FewerError(f"{what} has no linear layer that could be made a circuit")
        calls, renamed = _maxima_first(calls, self.maxima)
        result = str(renamed.get(result, result))
        used = {h.key for c in calls for h in places_of(c.args, Held)}
        averaged = tuple(c.name for c in calls if c.key in self.maxima)
        functions = {c.key: self.activations[c.key] for c in calls if c.kind == "activation"}
        tensors = {k: t for k, t in self.tensors.items() if k in used}
        return Network(tuple(calls), tensors, functions, self.entry, result, self.shape, averaged, left, functions)


_POOLS = ("avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool1d")
_FIRST = ("scale_shift", *_POOLS)
_MAXIMA = ("max_pool2d", "max_pool1d", "max_pool2d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool1d")


def _over_places(node: Any, kind: str, args: Any) -> bool:
    """Whether a maximum is that over places, as of a global pooling that is written out."""
    if kind not in ("amax", "max") or len(args) < 2 or isinstance(args[1], (Value, Held)):
        return False
    size = len(_shape_of(node.args[0]))
    return bool(_listed(args[1])) and all(d % size >= 2 for d in _listed(args[1]))


def _needed(calls: list[Call], result: str) -> list[Call]:
    """Those that the result depends on."""
    wanted, found = {result}, []
    for call in reversed(calls):
        if call.key in wanted:
            found.append(call)
            wanted |= {v.key for v in places_of(call.args, Value)}
    return found[::-1]


def _maxima_first(calls: list[Call], maxima: set[str]) -> tuple[list[Call], dict[str, str]]:
    """Averages that stand for maxima change places with the activation before them, where nothing else reads it."""
    uses: dict[str, int] = {}
    for call in calls:
        for value in places_of(call.args, Value):
            uses[value.key] = uses.get(value.key, 0) + 1
    found, renamed = [], {}
    for call in calls:
        args = _renamed(call.args, renamed)
        before = next((c for c in found if c.key == args[0].key), None) if call.key in maxima else None
        if before is not None and before.kind == "activation" and uses[before.key] == 1:
            found.remove(before)
            found.append(replace(call, args=(before.args[0], *args[1:])))
            found.append(replace(before, args=(Value(call.key),), shape=call.shape))
            renamed[call.key] = before.key
        else:
            found.append(replace(call, args=args))
    return found, renamed


def _renamed(args: Any, names: dict[str, str]) -> Any:
    if isinstance(args, Value):
        return Value(names.get(args.key, args.key))
    if isinstance(args, (list, tuple)):
        return type(args)(_renamed(a, names) for a in args)
    return args


def _kind_of(target: Any) -> str:
    """Name of an operation, the same for its forms and for those that write into their input."""
    if target is operator.getitem:
        return "getitem"
    name = getattr(getattr(target, "_schema", None), "name", getattr(target, "__name__", str(target)))
    name = name.split("::")[-1]
    return name.rstrip("_") if not name.startswith("__") else name


def _name_of(node: Any) -> str:
    """Of the module, as ``named_modules`` calls it."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.split("@")[0].removeprefix("L['self'].") or node.name


def _shape_of(node: Any) -> tuple[int, ...]:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, (list, tuple)) else value
    return tuple(int(n) for n in value.shape)


def _listed(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
