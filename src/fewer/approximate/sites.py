"""Where a model calls softmax, GELU, SiLU and LayerNorm, and the same model with integers at some of these places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.activation import WORK as ACTIVATION_WORK
from fewer.approximate.method import Work
from fewer.approximate.norm import NORMS
from fewer.approximate.norm import WORK as NORM_WORK
from fewer.approximate.replace import InIntegers
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.softmax import WORK as SOFTMAX_WORK
from fewer.core.errors import FewerError

__all__ = ["KINDS", "Site", "approximate", "approximated", "approximations_of", "find_sites", "methods_for"]

KINDS = {"softmax": SOFTMAXES, "activation": ACTIVATIONS, "norm": NORMS}
_WORK = {"softmax": SOFTMAX_WORK, "activation": ACTIVATION_WORK, "norm": NORM_WORK}
_MARK = "_fewer_approximation"  # of a module


@dataclass(frozen=True)
class Site:
    """One place where a model calls a function that integers can stand for.

    Attributes
    ----------
    name
        Of the innermost module in whose forward pass it is called.
    kind
        ``softmax``, ``activation`` or ``norm``.
    function
        ``softmax``, ``gelu``, ``silu`` or ``layer-norm``.
    numbers
        That go through it, for the example.
    """

    name: str
    kind: str
    function: str
    numbers: int

    def work(self, method: str) -> Work:
        """Operations of a method for each number."""
        return _WORK[self.kind][method]

    def joules(self, method: str) -> float:
        """Modelled energy of a method here: integer operations in 45 nm."""
        return 1e-12 * self.numbers * self.work(method).picojoules


def methods_for(site: Site) -> list[str]:
    """Names of the methods that can stand for a site's function.

    Examples
    --------
    >>> methods_for(Site("act", "activation", "silu", 8))
    ['table-silu', 'shift-silu']
    """
    if site.kind == "activation":
        return [name for name in ACTIVATIONS if name.endswith(site.function)]
    return [name for name in KINDS[site.kind] if name != "rms-norm"]


class _Recorder(TorchFunctionMode):
    """Notes calls and the module that they are made in, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = [""]
        self.calls: dict[tuple[str, str], int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.softmax, torch.softmax, Tensor.softmax):
            self._note("softmax", args[0].numel())
        elif func is F.scaled_dot_product_attention:
            self._note("softmax", args[0].shape[:-1].numel() * args[1].shape[-2])
        elif func is F.multi_head_attention_forward:
            query, heads = args[0], kwargs.get("num_heads", args[4] if len(args) > 4 else 1)
            keys = args[1] if len(args) > 1 else query
            self._note("softmax", int(query.shape[:-1].numel() * keys.shape[0] * heads))
        elif func is F.gelu:
            self._note("gelu", args[0].numel())
        elif func is F.silu:
            self._note("silu", args[0].numel())
        elif func is F.layer_norm and len(args[1]) == 1:
            self._note("layer-norm", args[0].numel())
        return func(*args, **kwargs)

    def _note(self, function: str, numbers: int) -> None:
        key = self.inside[-1], function
        self.calls[key] = self.calls.get(key, 0) + numbers


@contextmanager
def _without_fast_path() -> Iterator[None]:
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would not call the functions one by one
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def find_sites(model: nn.Module, run: Callable[[nn.Module], Any]) -> list[Site]:
    """All places of a model, in the order in which they are met.

    Parameters
    ----------
    model
        In evaluation mode; left as it is.
    run
        Calls the model once.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4))
    >>> [(site.name, site.function, site.numbers) for site in find_sites(net, lambda m: m(torch.zeros(2, 4)))]
    [('1', 'gelu', 8), ('2', 'layer-norm', 8)]
    """
    recorder = _Recorder()
    handles: list[Any] = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: recorder.inside.append(name)))
        handles.append(module.register_forward_hook(lambda *_: recorder.inside.pop() and None, always_call=True))
    try:
        with torch.no_grad(), _without_fast_path(), recorder:
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    kinds = {"gelu": "activation", "silu": "activation", "layer-norm": "norm", "softmax": "softmax"}
    return [Site(name, kinds[function], function, n) for (name, function), n in recorder.calls.items()]


class _Around:
    """Hooks of one module: integers while its forward pass runs."""

    def __init__(self, methods: dict[str, str]) -> None:
        self.methods = methods
        self.entered: list[Any] = []

    def before(self, *_: Any) -> None:
        stack = [torch.no_grad(), _without_fast_path(), InIntegers(**self.methods)]
        for one in stack:
            one.__enter__()
        self.entered.append(stack)

    def after(self, *_: Any) -> None:
        for one in reversed(self.entered.pop()):
            one.__exit__(None, None, None)

    def __deepcopy__(self, memo: Any) -> _Around:
        return _Around(dict(self.methods))


def approximate(model: nn.Module, choices: Mapping[str, Mapping[str, str]]) -> nn.Module:
    """Let integers stand for functions at some places of a model, which is changed and given back.

    Modules, parameters and their names stay. The integer results are turned back into floating point: it shows what
    the methods do to a network, is for inference only, and makes nothing faster.

    Parameters
    ----------
    model
        In evaluation mode.
    choices
        Module to kind to method, as in ``{"blocks.0.attn": {"softmax": "table"}}``.

    Raises
    ------
    FewerError
        For a module, kind or method that there is not, and for a model that has integers already.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.GELU()).eval()
    >>> x = torch.randn(2, 4)
    >>> before = net(x)
    >>> bool((approximate(net, {"1": {"activation": "table-gelu"}})(x) - before).abs().max() < 0.01)
    True
    """
    if approximations_of(model):
        raise FewerError("some functions of this model are integers already; start from the model as it was")
    modules = dict(model.named_modules())
    for name, methods in choices.items():
        if name not in modules:
            raise FewerError(f"there is no module {name!r} whose functions could be integers")
        for kind, method in methods.items():
            if kind not in KINDS:
                raise FewerError(f"{kind!r} is no kind of function; known are {', '.join(KINDS)}")
            _ = KINDS[kind][method]
    for name, methods in choices.items():
        module, around = modules[name], _Around({kind: methods.get(kind) for kind in KINDS})  # type: ignore[misc]
        module.register_forward_pre_hook(_Before(around))
        module.register_forward_hook(_After(around), always_call=True)
        setattr(module, _MARK, dict(methods))
    return model


class _Before:
    """A hook that a copy of the model has as its own, together with the one after it."""

    def __init__(self, around: _Around) -> None:
        self.around = around

    def __call__(self, *_: Any) -> None:
        self.around.before()


class _After:
    def __init__(self, around: _Around) -> None:
        self.around = around

    def __call__(self, *_: Any) -> None:
        self.around.after()


def approximations_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """What :func:`approximate` was told; empty for a model without integers.

    Examples
    --------
    >>> approximations_of(approximate(nn.Sequential(nn.GELU()), {"0": {"activation": "shift-gelu"}}))
    {'0': {'activation': 'shift-gelu'}}
    """
    return {name: dict(vars(m)[_MARK]) for name, m in model.named_modules() if _MARK in vars(m)}


@contextmanager
def approximated(model: nn.Module, choices: Mapping[str, Mapping[str, str]]) -> Iterator[nn.Module]:
    """:func:`approximate` for a while.

    Examples
    --------
    >>> net = nn.Sequential(nn.GELU())
    >>> with approximated(net, {"0": {"activation": "shift-gelu"}}) as other:
    ...     len(approximations_of(other))
    1
    >>> approximations_of(net)
    {}
    """
    try:
        yield approximate(model, choices)
    finally:
        for module in model.modules():
            if _MARK in vars(module):
                delattr(module, _MARK)
                for hooks in (module._forward_pre_hooks, module._forward_hooks):
                    for key in [k for k, hook in hooks.items() if isinstance(hook, (_Before, _After))]:
                        del hooks[key]
                        module._forward_hooks_always_called.pop(key, None)
