"""What a model does that it should not, seen on a few images before anything is measured: told, guarded, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError
from fewer.data.samples import as_samples, leaves
from fewer.distortion.outputs import output_tensors
from fewer.engine.settings import Settings
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.aside import Print, aside_of, steady
from fewer.models.guard import guard
from fewer.models.plain import state_of
from fewer.models.running import (
    Form,
    Forward,
    batch_size,
    call,
    call_plainly,
    copied,
    evaluating,
    model_input,
    put_samples_first,
    tensors_of,
)

__all__ = ["Conduct", "check_model"]

_SAME = 1e-4
"""Relative difference of two outputs up to which they are the same but for rounding."""
_SMALLEST, _LARGEST = 1e-12, 1e15
_GRADIENTS = "it cannot be differentiated"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Conduct:
    """How a model behaves.

    Attributes
    ----------
    notes
        Sentences for the report.
    differentiable
        Whether gradients reach its layers; where not, distortion is measured with forward passes only.
    aside
        Prints of what it computes with and no file of weights holds.
    """

    notes: tuple[str, ...] = ()
    differentiable: bool = True
    aside: Mapping[str, Print] = field(default_factory=dict)


def check_model(
    model: nn.Module, images: Any, settings: Settings, forward: Forward | None = None, *, plain: bool = True
) -> Conduct:
    """Run a model on a few images and see whether its answers can be compared with each other.

    A model that writes into its input or into buffers is guarded (:mod:`fewer.models.guard`) from here on.

    Parameters
    ----------
    model
        A copy that is ours; it gets the guard.
    images
        Samples, or a tensor of them, of which eight at most are used.
    settings
        Say whether gradients are asked for.
    forward
        ``forward(model, batch)``.
    plain
        Whether outputs are compared number by number, so that their shapes must stay.

    Raises
    ------
    FewerError
        When the output is random, holds NaN, changes its shape with the images or with the weights, when the forward
        pass changes parameters, or when gradients are asked for that do not exist.

    Examples
    --------
    >>> check_model(nn.Linear(2, 1), torch.eye(2), Settings()).differentiable
    True
    """
    samples = as_samples(images)
    tensor = samples.tensor
    half = max(1, min(2, len(samples) // 2)) if tensor is not None else 1
    batches = [model_input(model, part) for part in samples[: 4 * half].split(half)]
    first, last = batches[0], model_input(model, samples[len(samples) - half :])
    notes = []
    with torch.random.fork_rng(devices=[]):
        wrote, state, aside = _writes(model, first, forward)
        guard(model, inputs=wrote, state=state)
        if wrote:
            notes.append("the model writes into its input; it is given a copy of the images at every call")
        if state:
            names = ", ".join(sorted(f"{owner}.{name}".lstrip(".") for owner, name in state)[:3])
            notes.append(f"a call of the model changes {names}; it is put back before every call, and in the result")
        if not plain:
            return Conduct(tuple(notes), aside=aside)
        if tensor is not None and (forms := _forms(model, samples, forward)):
            put_samples_first(model, forms)
            notes.append("samples are not always the first dimension of the output; it is turned to be compared")
        output = _once(model, first, forward)
        if not any(t.numel() for t in output):
            raise FewerError("the model's output holds no numbers at all, so that no change of it can be measured")
        if not all(bool(torch.isfinite(t).all()) for t in output):
            raise FewerError(
                f"the dense model's output holds NaN or infinity on the calibration images; {_culprit(model)}"
            )
        _measurable(output)
        _same_twice(model, first, output, forward)
        _stays(model, first, last, forward)
        if tensor is not None:
            _same_shapes(model, batches, output, forward)
            notes += _alike(model, tensor, output, _once(model, last, forward))
        found = _differentiable(model, model_input(model, samples[:1]), forward)
    if found and (settings.estimator == "taylor" or settings.score == "taylor"):
        raise FewerError(
            f"gradients are asked for, but {found}; write that operation in another way, or give estimator=measured "
            "and score=magnitude"
        )
    if found and settings.score == "obs":
        notes.append(f"{found}; every row of a layer counts alike, and distortion is measured with forward passes")
    return Conduct(tuple(notes), not found, aside)


def _measurable(output: list[Tensor]) -> None:
    """Squares of the output must neither overflow nor vanish in 32 bits, in which gradients and distances are made."""
    top = max((float(t.abs().max()) for t in output if t.numel()), default=0.0)
    if top and not _SMALLEST <= top <= _LARGEST:
        raise FewerError(
            f"the model's largest output is {top:.1e}, whose square 32 bits cannot hold with any precision, so that "
            "no distortion can be measured; scale it, for example with forward=lambda model, batch: model(batch) * "
            f"{1 / top:.0e}"
        )


def _writes(
    model: nn.Module, batch: Any, forward: Forward | None
) -> tuple[bool, dict[tuple[str, str], Tensor], dict[str, Print]]:
    """Whether a call changes its input; what it changes in the model, with the values before; and what it leaves aside.

    Nothing is left of the calls.
    """
    twin, given = copied_module(model), copied(batch)
    before = {place: tensor.clone() for place, tensor in state_of(twin).items()}
    with evaluating(twin):
        with _guests(twin) as first:
            call(twin, batch, forward)  # says in a sentence what a model does not run on
        twin = set_evaluating(copied_module(model))
        with _guests(twin) as second:
            call_plainly(twin, given, forward)  # not by call(), which hands out a copy
    if forward is None:
        _refuse_original(model, [module for module in first if module in second])
    had = dict(model.named_parameters())
    if late := sorted(dict(twin.named_parameters()).keys() ^ had.keys()):
        raise FewerError(
            f"the forward pass adds parameters to the model or removes some ({', '.join(late[:3])}), so that no two "
            "outputs can be compared; run the model once before you give it, or make them in __init__"
        )
    for name, now in twin.named_parameters():
        old = had[name]
        if not isinstance(old, UninitializedTensorMixin) and not _equal(now, old):
            raise FewerError(
                f"the forward pass changes the parameter {name}, so that no two outputs can be compared; compute the "
                "changed weight in a new tensor instead of in place"
            )
    after = state_of(twin)
    state = {place: value for place, value in before.items() if not _equal(after.get(place), value)}
    wrote = any(not _equal(a, b) for a, b in zip(leaves(given), leaves(batch), strict=True))
    return wrote, state, steady(aside_of(model), aside_of(twin))


@contextmanager
def _guests(model: nn.Module) -> Iterator[set[nn.Module]]:
    """Modules with parameters that a call of the model runs though they are none of its own."""
    own, found, thread = {module: name for name, module in model.named_modules()}, set(), get_ident()

    def hook(module: nn.Module, args: Any) -> None:
        if module in own and next(module.parameters(False), None) is not None:
            _refuse_layer(own[module], args, get_ident() == thread)
        if get_ident() == thread and module not in own and next(module.parameters(False), None) is not None:
            found.add(module)

    # a compiled part cannot be compiled with a hook on every module; it does the same without
    stance = getattr(torch.compiler, "set_stance", None)
    apart: Any = torch.compiler.disable(hook)
    handle = register_module_forward_pre_hook(apart)
    try:
        with stance("force_eager") if stance else nullcontext():
            yield found
    finally:
        handle.remove()


def _refuse_layer(name: str, args: tuple[Any, ...], here: bool) -> None:
    """Refuse a layer that cannot be watched, in a thread of its own or inside of vmap, or whose input is too large."""
    functions: Any = getattr(torch._C, "_functorch", None)
    mapped = getattr(functions, "is_functorch_wrapped_tensor", lambda _: False)
    if not here:
        raise FewerError(
            f"layer {name!r} runs in another thread than the model, where it cannot be watched; call it in the thread "
            "that calls the model, or give forward=, a function (model, batch) that does"
        )
    if any(isinstance(one, Tensor) and mapped(one) for one in args):
        raise FewerError(
            f"layer {name!r} runs inside of torch.func (vmap, grad or jvp), where it cannot be watched; call it with a "
            "batch, or give forward=, a function (model, batch) that does"
        )
    numbers = [x.detach() for x in args if isinstance(x, Tensor) and x.is_floating_point() and x.numel()]
    top = max((float(x.abs().max()) for x in numbers), default=0.0)
    if _LARGEST < top < float("inf"):
        raise FewerError(
            f"the input of layer {name!r} is as large as {top:.1e}, whose square 32 bits cannot hold with any "
            "precision, so that no cut of it can be repaired; scale the weights before it and after it"
        )


def _refuse_original(model: nn.Module, guests: list[nn.Module]) -> None:
    """Refuse a model whose copies run layers of the original; a network beside the model is nobody's business.

    ``copy.deepcopy`` copies no function, so a lambda that a model keeps goes on calling the module it was made in.
    """
    for guest in guests:
        state = guest.state_dict()
        for name, module in model.named_modules():
            mine = module.state_dict()
            alike = type(module) is type(guest) and mine.keys() == state.keys()
            if alike and all(isinstance(v, Tensor) and _equal(state[key], v) for key, v in mine.items()):
                raise FewerError(
                    f"a copy of the model runs layer {name or type(module).__name__!r} of the original, since it keeps "
                    "a function that holds that layer, such as a lambda; make the function a method of the class"
                )


def _culprit(model: nn.Module) -> str:
    """Where NaN or infinity comes from: a parameter or buffer that holds one, or the images."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            layer, _, what = name.rpartition(".")
            return f"the {what} of layer '{layer}' holds NaN or infinity"
    return (
        "its weights are finite, so look at the images and at what the forward pass computes; where such values are "
        "meant (a mask, say), give forward=, a function (model, batch) that leaves them out"
    )


def _equal(a: Tensor | None, b: Tensor) -> bool:
    if a is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))


def _forms(model: nn.Module, samples: Any, forward: Forward | None) -> list[Form]:
    """How samples lie in each output where they are not simply first; empty where they are, or nobody can tell.

    Recurrent networks, and those that read text, often give their steps first; ``squeeze()`` takes the dimension of a
    lone sample away. What has as many entries as there are samples, for two numbers of samples, counts them.
    """
    if len(samples) < 3:
        return []
    lone, *pair = (_once(model, model_input(model, samples[:size]), forward) for size in (1, 2, 3))
    if len({len(lone), *map(len, pair)}) > 1:
        return []
    found: list[Form] = []
    odd = False
    for one, two, three in zip(lone, *pair, strict=True):
        along = [axis for axis in range(two.ndim) if two.shape[axis] == 2 and three.shape[axis : axis + 1] == (3,)]
        if two.shape == three.shape or 0 in along:  # anchors, say; or as usual
            along = [0]
        if len(along) != 1 or two.ndim != three.ndim:
            return []
        odd = odd or along != [0] or one.ndim == two.ndim - 1
        found.append((along[0], two.ndim))
    return found if odd else []


def _once(model: nn.Module, batch: Any, forward: Forward | None) -> list[Tensor]:
    with evaluating(model):
        return [t.detach().clone() for t in output_tensors(call(model, batch, forward))]


def _same_twice(model: nn.Module, batch: Tensor, output: list[Tensor], forward: Forward | None) -> None:
    again = _once(model, batch, forward)
    if _shapes(output) == _shapes(again) and _close(output, again):
        return
    where = _first_random(model, batch, forward)
    raise FewerError(
        f"the model gives another output for the same images at every call, also in evaluation mode{where}; switch "
        "that randomness off (for example F.dropout(..., training=self.training)), or seed it in forward="
    )


def _stays(model: nn.Module, batch: Any, other: Any, forward: Forward | None) -> None:
    """Refuse a model that gives its output in memory of its own, which the next call, or that of a copy, fills anew."""
    with evaluating(model):
        given = output_tensors(call(model, batch, forward))
        kept = [t.detach().clone() for t in given]
        call(model, other, forward)
        call(copied_module(model), other, forward)
    if not all(_equal(a.detach(), b) for a, b in zip(given, kept, strict=True)):
        raise FewerError(
            "the model gives its output in memory that its next call writes over, so that no two outputs can be "
            "compared; return a copy of it, with .clone(), or give forward=lambda model, batch: model(batch).clone()"
        )


def _close(a: list[Tensor], b: list[Tensor]) -> bool:
    for one, other in zip(a, b, strict=True):
        one, other = one.double(), other.double()
        scale = float(one.abs().max()) if one.numel() else 0.0
        if one.numel() and not float((one - other).abs().nan_to_num(0.0, 0.0, 0.0).max()) <= _SAME * max(scale, 1e-12):
            return False
    return True


def _first_random(model: nn.Module, batch: Any, forward: Forward | None) -> str:
    """Words that name the first module whose output differs between two calls though its input does not."""
    runs: list[list[tuple[str, list[Tensor], list[Tensor]]]] = []
    names = {module: name for name, module in model.named_modules() if name}
    for _ in range(2):
        seen: list[tuple[str, list[Tensor], list[Tensor]]] = []

        def hook(module: nn.Module, args: Any, result: Any, seen: Any = seen) -> None:
            seen.append((names[module], _floats(copied(args)), _floats(copied(result))))

        handles = [module.register_forward_hook(hook) for module in names]
        try:
            with evaluating(model):
                call(model, batch, forward)
        finally:
            for handle in handles:
                handle.remove()
        runs.append(seen)
    for (name, given, result), (_, given2, result2) in zip(*runs, strict=False):
        if _shapes(given) == _shapes(given2) and _close(given, given2):
            if _shapes(result) != _shapes(result2) or not _close(result, result2):
                return f": layer {name!r} ({type(model.get_submodule(name)).__name__}) is random"
        else:
            return f": what reaches layer {name!r} is random"
    return ""


def _floats(value: Any) -> list[Tensor]:
    try:
        return output_tensors(value)
    except FewerError:
        return []


def _shapes(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tensors]


def _same_shapes(model: nn.Module, batches: list[Any], output: list[Tensor], forward: Forward | None) -> None:
    hint = "give forward=, a function (model, batch) that returns what comes before that choice, such as all scores"
    for batch in batches[1:]:
        if batch_size(batch) != batch_size(batches[0]):
            continue
        other = _once(model, batch, forward)
        if _shapes(other) == _shapes(output):
            continue
        raise FewerError(
            f"the shape of the model's output depends on the images ({_told(output)}, then {_told(other)}), so that "
            f"its change cannot be measured; {hint}"
        )
    for share in (0.5, 0.9):
        twin = copied_module(model)
        with torch.no_grad():
            for weight in twin.parameters():
                if weight.ndim > 1 and weight.is_floating_point():
                    weight.mul_((torch.rand(weight.shape) >= share).to(weight.device))
        try:
            changed = _shapes(_once(twin, batches[0], forward))
        except FewerError as error:
            if "floating-point" not in str(error):
                raise
            changed = []
        if changed != _shapes(output):
            raise FewerError(
                f"the shape of the model's output depends on its weights, so that its change cannot be measured; {hint}"
            )


def _told(tensors: list[Tensor]) -> str:
    return " ".join(map(str, _shapes(tensors)[:3]))


def _silent(model: nn.Module) -> str:
    """Why a model gives nothing but zeros, and the way out."""
    empty = [
        name for name, module in model.named_modules() if isinstance(module, _LAYERS) and not bool(module.weight.any())
    ]
    if not empty:
        return "give images like those that it is used on"
    return (
        f"all weights of layer '{empty[-1]}' are 0, as in a head that was never trained: load trained weights, fill "
        "them with random numbers, or give forward=, a function (model, batch) that returns what comes before it"
    )


def _alike(model: nn.Module, images: Tensor, first: list[Tensor], second: list[Tensor]) -> list[str]:
    """Tell where all images, or all outputs, are one and the same: nothing can be learned from them about others."""
    if len(images) > 1 and bool((images == images[:1]).all()):
        what = "one value everywhere" if bool((images == images.flatten()[0]).all()) else "the same content"
        raise FewerError(
            f"all {len(images)} calibration images are alike ({what}), so that they cannot tell what a change of the "
            "model does; give images like those that it is used on"
        )
    outputs = [*first, *second]
    if not any(bool(t.any()) for t in outputs):
        raise FewerError(
            "every output of the model is 0 on the calibration images, so that no change of it can be measured; "
            f"{_silent(model)}"
        )
    samples = [t for t in outputs if t.ndim and len(t) > 1] if len(images) > 1 else []
    if samples and all(bool((t == t[:1]).all()) for t in samples) and _close(first, second):
        return ["the model gives the same output for every image that was looked at, so that distortion says little"]
    return []


def _differentiable(model: nn.Module, batch: Any, forward: Forward | None) -> str:
    """Why gradients do not reach the layers, in words; empty where they do."""
    twin = copied_module(model)
    seen: list[str] = []
    names = {module: name for name, module in twin.named_modules() if name and not any(module.children())}

    def told(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            for tensor in tensors_of(output):
                if tensor.requires_grad:
                    tensor.register_hook(lambda _grad: seen.append(name))

        return hook

    handles = [module.register_forward_hook(told(name)) for module, name in names.items()]
    ran: list[str] = []
    handles += [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for module, name in names.items()
        if isinstance(module, _LAYERS)
    ]
    try:
        for parameter in twin.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with evaluating(twin), torch.enable_grad():
            outputs = output_tensors(call(twin, batch, forward))
            total = sum(t.float().square().sum() for t in outputs if t.requires_grad)
            if not isinstance(total, Tensor):
                return f"{_GRADIENTS}: no gradient reaches the model's weights from its output"
            total.backward()
        blind = [name for name in dict.fromkeys(ran) if twin.get_submodule(name).weight.grad is None]
        if blind and _matter(twin, blind, batch, forward):
            return f"{_GRADIENTS}: no gradient reaches layer {blind[0]!r}, as under torch.no_grad() or before detach()"
    except FewerError as error:
        return _reason(str(error.__cause__ or error), seen)
    except RuntimeError as error:
        return _reason(str(error), seen)
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _matter(model: nn.Module, layers: list[str], batch: Any, forward: Forward | None) -> bool:
    """Whether the output changes with the weights of some layers of a copy: a head for training alone has no say."""
    before = _once(model, batch, forward)
    with torch.no_grad():
        for name in layers:
            weight: Any = model.get_submodule(name).weight
            weight.add_(torch.randn_like(weight) * (weight.abs().mean() + 1e-3))
    after = _once(model, batch, forward)
    return _shapes(before) != _shapes(after) or not _close(before, after)


def _reason(text: str, seen: list[str]) -> str:
    where = f" at or before layer {seen[-1]!r}" if seen else " behind its last layer"
    if "inplace" in text or "in-place" in text:
        return f"{_GRADIENTS}, since a tensor is changed in place{where}"
    return f"{_GRADIENTS}{where} ({' '.join(text.split())[:100]})"
