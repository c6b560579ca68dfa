"""Where a model calls softmax, GELU, SiLU and norms, and the same model with integers at some of these places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.activation import WORK as ACTIVATION_WORK
from fewer.approximate.calls import read_call
from fewer.approximate.method import Work
from fewer.approximate.norm import NORMS
from fewer.approximate.norm import WORK as NORM_WORK
from fewer.approximate.replace import KIND_OF, InIntegers
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.softmax import WORK as SOFTMAX_WORK
from fewer.core.errors import FewerError

__all__ = [
    "KINDS",
    "Site",
    "approximate",
    "approximated",
    "approximations_of",
    "choices_of",
    "find_sites",
    "methods_for",
]

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
        ``softmax``, ``gelu``, ``silu``, ``layer-norm`` or ``rms-norm``.
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
    if site.kind == "norm":
        return [name for name in NORMS if (name == "rms-norm") == (site.function == "rms-norm")]
    return [*KINDS[site.kind]]


def choices_of(sites: Sequence[Site], methods: Sequence[str]) -> dict[str, dict[str, str]]:
    """What :func:`approximate` takes, of a method for each place.

    A module that calls two functions of a kind by itself has a method for each of them.

    Examples
    --------
    >>> both = [Site("a", "activation", f, 8) for f in ("gelu", "silu")] + [Site("a", "norm", "rms-norm", 8)]
    >>> choices_of(both, ["table-gelu", "shift-silu", "rms-norm"])
    {'a': {'gelu': 'table-gelu', 'silu': 'shift-silu', 'norm': 'rms-norm'}}
    """
    often = Counter((site.name, site.kind) for site in sites)
    found: dict[str, dict[str, str]] = {}
    for site, method in zip(sites, methods, strict=True):
        key = site.kind if often[site.name, site.kind] == 1 else site.function
        found.setdefault(site.name, {})[key] = method
    return found


class _Recorder(TorchFunctionMode):
    """Notes calls and the module that they are made in, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = [""]
        self.calls: dict[tuple[str, str], int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (found := read_call(func, args, kwargs)) is not None:
            self._note(found.function, found.numbers)
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
    return [Site(name, KIND_OF[function], function, n) for (name, function), n in recorder.calls.items()]


class _Around:
    """Hooks of one module: integers while its own forward pass runs, and not that of a module within it."""

    def __init__(self, methods: dict[str, str]) -> None:
        self.methods = methods
        self.entered: list[Any] = []
        self.within = 0

    def before(self, *_: Any) -> None:
        stack = [torch.no_grad(), _without_fast_path(), InIntegers(self.methods, lambda: self.within == 0)]
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
        Module to kind to method, as in ``{"blocks.0.attn": {"softmax": "table"}}``; a function such as ``silu`` may
        stand in place of its kind.

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
            if kind not in KINDS and kind not in KIND_OF:
                raise FewerError(f"{kind!r} is no kind of function; known are {', '.join(KINDS)}")
            _ = KINDS[KIND_OF.get(kind, kind)][method]
    for name, methods in choices.items():
        module, around = modules[name], _Around(dict(methods))
        module.register_forward_pre_hook(_Before(around))
        module.register_forward_hook(_After(around), always_call=True)
        for child in list(module.modules())[1:]:
            child.register_forward_pre_hook(_Into(around))
            child.register_forward_hook(_OutOf(around), always_call=True)
        setattr(module, _MARK, dict(methods))
    return model


class _Before:
    """A hook that a copy of the model has as its own, together with the one after it."""

    def __init__(self, around: _Around) -> None:
        self.around = around

    def __call__(self, *_: Any) -> None:
        self.around.before()


class _After(_Before):
    def __call__(self, *_: Any) -> None:
        self.around.after()


class _Into(_Before):
    """A module within the one whose functions are integers: what it calls is a place of its own."""

    def __call__(self, *_: Any) -> None:
        self.around.within += 1


class _OutOf(_Before):
    def __call__(self, *_: Any) -> None:
        self.around.within -= 1


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
            vars(module).pop(_MARK, None)
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [k for k, hook in hooks.items() if isinstance(hook, _Before)]:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)
