"""``accelerate``: replace the layers of a pruned model by faster ones, each only where a measurement says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import native
from fewer.kernels.candidates import kept_blocks, linear_candidates, sparse_candidates
from fewer.kernels.chains import DENSE, chain_candidates, find_chains
from fewer.kernels.choose import Choice, choose_backend
from fewer.kernels.conv import BlockSparseConv2d
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.kernels.format import UNIT
from fewer.kernels.fuse import find_runs, swap, trace
from fewer.kernels.likeness import StandIn, candidates_of, find_likenesses, same_as, without_shortcuts
from fewer.kernels.linear import BlockSparseLinear
from fewer.kernels.plain import plain_convolutions, unpadded
from fewer.kernels.report import LayerReport
from fewer.kernels.stages import NativeChain
from fewer.kernels.transformer import PATHS, NativeBlock, disagreement, why_not_a_block

__all__ = ["LayerReport", "accelerate"]

# How far a native block may be from the torch block before the rewrite is refused: same mathematics, other rounding.
_SAME = 1e-3
_NAN = float("nan")


def _check_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    import difflib

    modules = dict(model.named_modules())
    for name, mask in masks.items():
        module: Any = modules.get(name)
        if module is None:
            near = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FewerError(f"there is a mask for {name!r}, but the model has no such layer{hint}")
        # sparse convolutions are no class of torch's
        convolves = hasattr(module, "kernel_size") and hasattr(module, "weight")
        if not (convolves or isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)):
            raise FewerError(
                f"there is a mask for {name!r}, which is a {type(module).__name__}, not a linear or conv layer"
            )
        if _computed(module):
            raise FewerError(
                f"the weight of {name!r} is computed from other parameters at every call, so that a mask would be "
                "lost; make it plain first (remove_weight_norm, parametrize.remove_parametrizations, prune.remove)"
            )
        if mask.dtype != torch.bool or mask.shape != module.weight.shape:
            raise FewerError(
                f"the mask of {name!r} is {mask.dtype} {tuple(mask.shape)}; "
                f"it must be torch.bool {tuple(module.weight.shape)}, True where a weight is kept"
            )


def _copy(model: nn.Module) -> nn.Module:
    """A copy to work on.

    Raises
    ------
    FewerError
        For a model that keeps weights with a gradient history, as ``weight_norm`` does.
    """
    try:
        return copied_module(model)
    except Exception as error:  # a module may hold anything
        raise FewerError(
            f"the model cannot be copied ({str(error)[:80]}); make plain parameters of weights that are computed from "
            "others (torch.nn.utils.remove_weight_norm, parametrize.remove_parametrizations, prune.remove)"
        ) from error


def _computed(module: nn.Module) -> bool:
    """Whether the weight of a layer is no parameter, but made anew from others at every call."""
    return not isinstance(dict(module.named_parameters(recurse=False)).get("weight"), nn.Parameter)


def capture_inputs(model: nn.Module, example: Any, wanted: set[str]) -> dict[str, Tensor]:
    """The first input of each wanted module in one forward pass."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in seen and args and isinstance(args[0], Tensor):
                seen[name] = args[0].detach().clone()

        return keep

    # before any hook that pads
    handles = [m.register_forward_pre_hook(hook(n), prepend=True) for n, m in model.named_modules() if n in wanted]
    try:
        _run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _sparsity(mask: Tensor | None) -> float:
    return 0.0 if mask is None else 1 - float(mask.float().mean())


@dataclass
class _Work:
    """The state of one call of :func:`accelerate`."""

    model: nn.Module
    masks: dict[str, Tensor]
    precision: str | Mapping[str, str]
    budget_ms: float
    inputs: dict[str, Tensor]
    tell: Callable[[str], None]
    rows: list[LayerReport] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # blocks that stay torch blocks, and why

    def inside(self, name: str) -> str:
        """Precision of a layer of a transformer block."""
        return self.precision if isinstance(self.precision, str) else self.precision.get(name, "fp32")

    def outside(self, name: str) -> str:
        """Precision of a layer outside of transformer blocks: int8 only where the user asked for it."""
        if not isinstance(self.precision, str):
            return self.inside(name)
        return "bf16" if self.precision == "int8" and name not in self.masks else self.precision

    def record(self, name: str, kind: str, choice: Choice, candidates: Mapping[str, nn.Module], note: str = "") -> None:
        """Add the row of a layer that was measured alone."""
        backend, _, precision = choice.name.rpartition(" ")
        mask = self.masks.get(name)
        saves = {
            key: max(0.0, 1 - kernel.packed().density)
            for key, module in candidates.items()
            if isinstance(kernel := unpadded(module), BlockSparseLinear | BlockSparseConv2d)
        }
        saves |= {
            key: 1 - kept_blocks(one) for key, one in candidates.items() if getattr(one, "products", None) is not None
        }
        skipped = saves.get(choice.name, 0.0)
        reason = choice.reason + (f"; {note}" if note else "")
        if saves and max(saves.values()) < 0.05 and _sparsity(mask) > 0.05:
            reason += "; the mask leaves no whole blocks of 16 rows empty, so its zeros save no work"
        before, after = choice.ms[DENSE], choice.ms[choice.name]
        self.rows.append(LayerReport(name, kind, backend, precision, _sparsity(mask), skipped, before, after, reason))


def lowest_precision(precisions: Iterable[str]) -> str:
    """The coarsest of some precisions; fp32 when there are none.

    Examples
    --------
    >>> lowest_precision(["bf16", "fp32"])
    'bf16'
    """
    found = set(precisions)
    return next((p for p in reversed(UNIT) if p in found), "fp32")


def _do_blocks(work: _Work, blocks: set[str], layers: set[str]) -> None:
    """Replace transformer blocks, and take their layers off the list."""
    for name in [n for n in work.inputs if n in blocks]:
        work.tell(name)
        block: Any = work.model.get_submodule(name)
        reason = why_not_a_block(block)
        if reason:
            work.refused[name] = reason
            continue
        # a block that merges tokens is fused without that, and merges what its fused form gives
        plain = block.without_merging() if hasattr(block, "without_merging") else block
        inner = {p: work.masks[f"{name}.{p}"] for p in PATHS.values() if f"{name}.{p}" in work.masks}
        fast = NativeBlock.from_block(plain, inner, "fp32")
        if disagreement(plain, fast, fast.width) > _SAME:
            work.refused[name] = "its forward pass computes something else than its structure suggests"
            continue
        precisions = {p: work.inside(f"{name}.{p}") for p in PATHS.values()}
        lowest = lowest_precision(precisions.values())
        if lowest != "fp32":
            fast = NativeBlock.from_block(plain, inner, precisions)
        whole: nn.Module = block.around(fast) if hasattr(block, "around") else fast
        x, label = work.inputs[name], f"native block {lowest}"
        runs = {DENSE: lambda block=block, x=x: block(x), label: lambda whole=whole, x=x: whole(x)}
        choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
        if choice.name == DENSE:
            work.refused[name] = choice.reason
            continue
        _replace(work.model, name, whole)
        work.record(name, "block", choice, {})
        for short, path in PATHS.items():
            full, layer = f"{name}.{path}", getattr(fast, short)
            skipped = max(0.0, 1 - layer.packed().density)
            sparsity = _sparsity(work.masks.get(full))
            work.rows.append(
                LayerReport(
                    full, "linear", "native block", precisions[path], sparsity, skipped, _NAN, _NAN, f"part of {name}"
                )
            )
            layers.discard(full)


def _do_likenesses(work: _Work, layers: set[str]) -> None:
    """Replace transformer blocks that are written in another way, and take their layers off the list."""
    for name in [n for n in find_likenesses(work.model) if n in work.inputs]:
        work.tell(name)
        module, x = work.model.get_submodule(name), work.inputs[name]
        if x.ndim != 3 or isinstance(module, NativeBlock):
            continue
        like = next((c for c in candidates_of(module) if same_as(module, c, x) <= _SAME), None)
        if like is None:
            continue
        full = {path: [f"{name}.{part}".lstrip(".") for part in parts] for path, parts in like.names.items()}
        masks = {path: mask for path, parts in full.items() if (mask := _joint_mask(work.masks, parts)) is not None}
        # three layers that become one are as precise as the most precise of them
        precisions = {
            path: min((work.inside(p) for p in parts), key=list(UNIT).index, default="fp32")
            for path, parts in full.items()
        }
        if not full["attn.qkv"] and isinstance(work.precision, str):
            precisions |= dict.fromkeys(("attn.qkv", "attn.proj"), work.precision)
        lowest = lowest_precision(precisions.values())
        fast = StandIn(NativeBlock.from_block(like.block, masks, precisions), module)
        label = f"native block {lowest}"
        runs = {DENSE: lambda module=module, x=x: module(x), label: lambda fast=fast, x=x: fast(x)}
        choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
        if choice.name == DENSE:
            work.refused[name] = choice.reason
            continue
        _replace(work.model, name, fast)
        work.record(name, "block", choice, {})
        for path, parts in full.items():
            for part in parts:
                sparsity = _sparsity(work.masks.get(part))
                row = (part, "linear", "native block", precisions[path], sparsity, 0.0, _NAN, _NAN, f"part of {name}")
                work.rows.append(LayerReport(*row))
                layers.discard(part)


def _joint_mask(masks: Mapping[str, Tensor], parts: list[str]) -> Tensor | None:
    """The mask of layers that are put on top of each other; None where none has one."""
    if len(parts) == 1 or not any(part in masks for part in parts):
        return masks.get(parts[0]) if parts else None
    known = next(masks[part] for part in parts if part in masks)
    return torch.cat([masks.get(part, torch.ones_like(known)) for part in parts])


def _in_fp32(model: nn.Module, blocks: set[str], layers: set[str]) -> tuple[set[str], set[str], dict[str, str]]:
    """Blocks and layers whose tensors the kernels take, and why each other layer stays as it is."""
    others = {}
    for name in layers:
        layer = model.get_submodule(name)
        kinds = {t.dtype for t in layer.parameters() if t.is_floating_point()} - {torch.float32}
        if kinds:
            others[name] = f"it holds {str(kinds.pop()).removeprefix('torch.')}, and the kernels take fp32"
        elif _computed(layer):
            others[name] = "its weight is computed from other parameters at every call"
    taken = {
        name
        for name in blocks
        if all(p.dtype == torch.float32 for p in model.get_submodule(name).parameters())
        and not any(other.startswith(name + ".") for other in others)
    }
    return taken, layers - others.keys(), others


def _batched(
    inputs: Mapping[str, Tensor], convolutions: set[str], layers: set[str], others: dict[str, str]
) -> tuple[set[str], dict[str, str]]:
    """Leave out convolutions that are given one image without a batch, which no kernel takes."""
    single = {name for name in convolutions & inputs.keys() if inputs[name].ndim != 4}
    return layers - single, others | dict.fromkeys(single, "it is given one image without a batch")


def _do_linear(work: _Work, name: str) -> None:
    work.tell(name)
    linear: Any = work.model.get_submodule(name)
    x = work.inputs[name]
    candidates = linear_candidates(linear, work.masks.get(name), work.outside(name))
    runs = {key: (lambda layer=layer: layer(x)) for key, layer in candidates.items()}
    choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
    _replace(work.model, name, candidates[choice.name])
    inside = next((b for b in work.refused if name.startswith(b + ".")), None)
    note = f"{inside} is not fused: {work.refused[inside]}" if inside else ""
    work.record(name, "linear", choice, candidates, note)


def _do_sparse(work: _Work, name: str) -> None:
    work.tell(name)
    layer: Any = work.model.get_submodule(name)
    x = work.inputs[name]
    candidates = sparse_candidates(layer, work.masks.get(name), work.outside(name))
    runs = {key: (lambda one=one: one(x)) for key, one in candidates.items()}
    choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
    _replace(work.model, name, candidates[choice.name])
    work.record(name, "sparse conv", choice, candidates)


def _do_runs(work: _Work, layers: set[str]) -> None:
    """Replace runs of 1 x 1 and depthwise convolutions, and take their layers off the list."""
    if not any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in work.model.modules()):
        return  # nothing but depthwise networks gains from one call
    traced = trace(work.model)
    if traced is None:
        return
    for number, run in enumerate(find_runs(traced)):
        units = [u for stage in run.stages for u in stage.units]
        if not all(u.name in layers and u.name in work.inputs for u in units):
            continue
        work.tell(units[0].name)
        x = work.inputs[units[0].name]
        precisions = {u.name: work.outside(u.name) for u in units if u.kind != "depthwise"}
        lowest = lowest_precision(precisions.values())
        plain, label = run.plain(traced), f"native chain {lowest}"
        chain = NativeChain(run.stages, work.masks, precisions)
        image = x.contiguous(memory_format=torch.channels_last)
        expected = plain(x)
        exact = chain if lowest == "fp32" else NativeChain(run.stages, work.masks, "fp32")
        if float((exact(x) - expected).norm() / expected.norm().clamp_min(1e-12)) > _SAME:
            continue  # it computes something else than its structure suggests
        runs = {DENSE: lambda plain=plain, x=x: plain(x), label: lambda chain=chain, image=image: chain(image)}
        choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
        if choice.name == DENSE:
            continue
        name = f"native_chain_{number}"
        swap(traced, run, name, chain)
        work.record(name, "chain", choice, {})
        for unit in units:
            layers.discard(unit.name)
            sparse = unit.name in chain.names
            skipped = max(0.0, 1 - chain.packed(unit.name).density) if sparse else 0.0
            sparsity = _sparsity(work.masks.get(unit.name))
            precision = precisions.get(unit.name, "bf16" if lowest != "fp32" else "fp32")
            reason = f"part of {name}"
            work.rows.append(
                LayerReport(unit.name, "conv2d", "native chain", precision, sparsity, skipped, _NAN, _NAN, reason)
            )
        work.model = traced


def _do_convs(work: _Work, layers: set[str]) -> None:
    """Replace convolutions with what follows them; dense ones are timed as they are, fast ones channels-last."""
    for name, chain in find_chains(work.model).items():
        if name not in layers or name not in work.inputs:
            continue
        work.tell(name)
        x = work.inputs[name]
        image = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        candidates, missing = chain_candidates(chain, work.masks.get(name), work.outside(name))
        runs: dict[str, Callable[[], object]] = {DENSE: lambda chain=chain, x=x: chain.dense(x)}
        runs |= {k: (lambda layer=layer, image=image: layer(image)) for k, layer in candidates.items()}
        choice = choose_backend(runs, DENSE, budget_ms=work.budget_ms)
        if choice.name != DENSE:
            _replace(work.model, name, candidates[choice.name])
            for follower in chain.followers:
                _replace(work.model, follower, nn.Identity())
        work.record(name, "conv2d", choice, candidates, missing)


def _kinds(model: nn.Module) -> dict[str, str]:
    """The layers that kernels may take over, and what each is."""
    found = {
        n: "conv2d" if type(m) is nn.Conv2d else "linear"
        for n, m in model.named_modules()
        if type(m) in (nn.Linear, nn.Conv2d)
    }
    # no class of torch's, so that they are known by what they offer
    sparse = {n: "sparse conv" for n, m in model.named_modules() if hasattr(m, "by_offset") and m.products is None}
    return found | sparse


def _run(model: nn.Module, example: Any) -> Any:
    # copies, since a model may write into its input
    try:
        return model(*(x.clone() for x in example)) if isinstance(example, tuple) else model(example.clone())
    except FewerError:
        raise
    except Exception as error:  # such as one that computes gradients by itself, which inference has not
        reason = " ".join(str(error).split())[:200]
        raise FewerError(
            f"the model does not run for inference alone ({type(error).__name__}: {reason}), so that it cannot be "
            "accelerated; load it as it is"
        ) from error


def accelerate(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None = None,
    *,
    example: Any,
    precision: str | Mapping[str, str] = "fp32",
    budget_ms: float = 40.0,
    progress: Callable[[str], None] | None = None,
) -> tuple[nn.Module, list[LayerReport]]:
    """A copy of a model that runs faster on this machine, layer by layer where a measurement says so.

    Transformer blocks become one native call each; other linear and convolution layers are packed, run in dense bf16,
    or stay as they are, whichever is fastest. A layer that does not gain stays dense in fp32, and its row says why.
    The result is for inference, on CPU, in this process: keep the model and the masks, and call this again elsewhere.

    Parameters
    ----------
    model : nn.Module
        The model; it is not changed. Weights outside of the masks are taken as zero.
    masks : mapping of str to Tensor bool, optional
        By module name, of the shape of the weight, True where it is kept. Layers without a mask are dense.
    example : Tensor or tuple of Tensor
        An input of the size that will be used; layers are timed on what reaches them from it.
    precision : str or mapping of str to str
        ``fp32``, ``bf16`` or ``int8`` (weights and, per token, activations). Layers outside of transformer blocks that
        see the image or make the prediction are kept at bf16 for int8, where rounding costs most. A mapping gives each
        layer its own, by module name; layers that it does not name stay fp32.
    budget_ms : float
        Time to measure each layer.
    progress : callable, optional
        Called with the name of each layer.

    Returns
    -------
    tuple of (nn.Module, list of LayerReport)
        The fast model, in evaluation mode, and one row for each layer.

    Raises
    ------
    FewerError
        For a mask that fits no layer, or an unknown precision.

    Examples
    --------
    >>> model, rows = accelerate(nn.Sequential(nn.Linear(32, 32)), example=torch.zeros(4, 32), budget_ms=1)
    >>> rows[0].name
    '0'
    """
    for wanted in [precision] if isinstance(precision, str) else precision.values():
        if wanted not in UNIT:
            raise FewerError(f"unknown precision {wanted!r}; choose one of {', '.join(UNIT)}")
    masks = dict(masks or {})
    _check_masks(model, masks)
    with torch.inference_mode(False), torch.no_grad():
        original = set_evaluating(_copy(model)).requires_grad_(False)
        for name, mask in masks.items():
            weight: Any = original.get_submodule(name).weight
            weight.copy_(torch.where(mask.to(weight.device), weight, 0.0))
        fast = plain_convolutions(without_shortcuts(copied_module(original)), lambda m: _run(m, example))
    kinds = _kinds(fast)
    with torch.inference_mode():
        likenesses = set(find_likenesses(fast)) if native.available() else set()
        blocks = {n for n, m in fast.named_modules() if hasattr(m, "attn") and hasattr(m, "mlp")}
        blocks, layers, others = _in_fp32(fast, blocks, set(kinds))
        inputs = capture_inputs(fast, example, blocks | layers | likenesses)
        layers, others = _batched(inputs, {n for n in layers if kinds[n] == "conv2d"}, layers, others)
        work = _Work(fast, masks, precision, budget_ms, inputs, progress or (lambda name: None))
        if native.available():
            _do_blocks(work, blocks, layers)
            _do_likenesses(work, layers)
            _do_runs(work, layers)
            fast = work.model
        _do_convs(work, layers)
        for name in [n for n in inputs if n in layers and kinds[n] == "linear"]:
            _do_linear(work, name)
        for name in [n for n in inputs if n in layers and kinds[n] == "sparse conv"]:
            _do_sparse(work, name)
        for name, reason in sorted(others.items()):
            work.rows.append(
                LayerReport(name, kinds[name], "dense", "fp32", _sparsity(masks.get(name)), 0.0, _NAN, _NAN, reason)
            )
        for name in sorted(layers - inputs.keys()):
            reason = "the example does not reach this layer"
            work.rows.append(
                LayerReport(name, kinds[name], "dense", "fp32", _sparsity(masks.get(name)), 0.0, _NAN, _NAN, reason)
            )
        lowest = precision if isinstance(precision, str) else lowest_precision(precision.values())
        runs = {DENSE: lambda: _run(original, example), f"accelerated {lowest}": lambda: _run(fast, example)}
        whole = choose_backend(runs, DENSE, budget_ms=5 * budget_ms, margin=1.0)
        work.record("", "model", whole, {})
    if whole.name != DENSE:
        return fast, work.rows
    # Faster layers need not make a faster model (changes of memory layout between them): never slower.
    note = "; the whole model did not gain, so every layer stays dense"
    return original, [
        replace(r, backend="dense", precision="fp32", skipped=0.0, ms_after=r.ms_before, reason=r.reason + note)
        for r in work.rows
    ]
