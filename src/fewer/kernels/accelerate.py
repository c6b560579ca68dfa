"""``accelerate``: replace the layers of a pruned model by faster ones, each only where a measurement says so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import native
from fewer.kernels.choose import Choice, choose_backend
from fewer.kernels.dense import DenseBF16
from fewer.kernels.format import UNIT
from fewer.kernels.linear import BlockSparseLinear
from fewer.kernels.transformer import PATHS, NativeBlock, disagreement, why_not_a_block

DENSE = "dense fp32"
# How far a native block may be from the torch block before the rewrite is refused: same mathematics, other rounding.
_SAME = 1e-3


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes
    ----------
    name, kind : str
        Module name; ``linear``, ``conv2d`` or ``block``.
    backend, precision : str
        How it runs now: ``native``, ``gather``, ``dense``, ``native block``.
    sparsity : float
        Share of weights that the mask prunes.
    skipped : float
        Share of the work that the stored blocks save; 0 for a mask without whole empty blocks.
    ms_before, ms_after : float
        Median milliseconds on the example input, dense fp32 and as chosen; NaN where the layer was not measured alone.
    reason : str
        Why, in one sentence.
    """

    name: str
    kind: str
    backend: str
    precision: str
    sparsity: float
    skipped: float
    ms_before: float
    ms_after: float
    reason: str

    @property
    def speedup(self) -> float:
        """Times faster than before."""
        return self.ms_before / self.ms_after if self.ms_after else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "speedup": self.speedup}


def _check_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    import difflib

    modules = dict(model.named_modules())
    for name, mask in masks.items():
        module = modules.get(name)
        if module is None:
            near = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FewerError(f"there is a mask for {name!r}, but the model has no such layer{hint}")
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise FewerError(
                f"there is a mask for {name!r}, which is a {type(module).__name__}, not a linear or conv layer"
            )
        if mask.dtype != torch.bool or mask.shape != module.weight.shape:
            raise FewerError(
                f"the mask of {name!r} is {mask.dtype} {tuple(mask.shape)}; "
                f"it must be torch.bool {tuple(module.weight.shape)}, True where a weight is kept"
            )


def _capture_inputs(model: nn.Module, example: Any, wanted: set[str]) -> dict[str, Tensor]:
    """The first input of each wanted module in one forward pass."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in seen and args and isinstance(args[0], Tensor):
                seen[name] = args[0].detach().clone()

        return keep

    handles = [m.register_forward_pre_hook(hook(n)) for n, m in model.named_modules() if n in wanted]
    try:
        model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _sparsity(mask: Tensor | None) -> float:
    return 0.0 if mask is None else 1 - float(mask.float().mean())


def linear_candidates(linear: nn.Linear, mask: Tensor | None, precision: str) -> dict[str, nn.Module]:
    """Every way to run a linear layer at ``precision`` or better, the dense fp32 one first.

    Examples
    --------
    >>> sorted(linear_candidates(nn.Linear(16, 16), None, "fp32"))[0]
    'dense fp32'
    """
    found: dict[str, nn.Module] = {DENSE: linear}
    if native.available():
        found[f"native {precision}"] = BlockSparseLinear.from_dense(linear, mask, precision, backend="native")
    elif mask is not None and _sparsity(mask) > 0.4:
        found["gather fp32"] = BlockSparseLinear.from_dense(linear, mask, "fp32", backend="gather")
    if precision != "fp32":
        found["dense bf16"] = DenseBF16(linear)
    return found


def _report(name: str, kind: str, choice: Choice, module: nn.Module, mask: Tensor | None) -> LayerReport:
    backend, _, precision = choice.name.rpartition(" ")
    density = module.packed().density if isinstance(module, BlockSparseLinear) else 1.0
    skipped = max(0.0, 1 - density) if backend in ("native", "gather") else 0.0
    reason = choice.reason
    if mask is not None and skipped < 0.05 and _sparsity(mask) > 0.05:
        reason += "; the mask leaves no whole blocks of 16 rows empty, so its zeros save no work"
    return LayerReport(
        name, kind, backend, precision, _sparsity(mask), skipped, choice.ms[DENSE], choice.ms[choice.name], reason
    )


def _try_block(name: str, block: nn.Module, masks: Mapping[str, Tensor], precision: str, x: Tensor, budget_ms: float):
    """(native block, choice) or (None, reason)."""
    reason = why_not_a_block(block)
    if reason:
        return None, reason
    inner = {path: masks[f"{name}.{path}"] for path in PATHS.values() if f"{name}.{path}" in masks}
    exact = NativeBlock.from_block(block, inner, "fp32")
    if disagreement(block, exact, exact.width) > _SAME:
        return None, "its forward pass computes something else than its structure suggests"
    candidate = exact if precision == "fp32" else NativeBlock.from_block(block, inner, precision)
    label = f"native block {precision}"
    return candidate, choose_backend({DENSE: lambda: block(x), label: lambda: candidate(x)}, DENSE, budget_ms=budget_ms)


def accelerate(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None = None,
    *,
    example: Any,
    precision: str = "fp32",
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
    precision : str
        ``fp32``, ``bf16`` or ``int8`` (weights and, per token, activations). Layers outside of transformer blocks that
        see the image or make the prediction are kept at bf16 for int8, where rounding costs most.
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
    if precision not in UNIT:
        raise FewerError(f"unknown precision {precision!r}; choose one of {', '.join(UNIT)}")
    masks = dict(masks or {})
    _check_masks(model, masks)
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(model).eval().requires_grad_(False)
        for name, mask in masks.items():
            weight: Any = model.get_submodule(name).weight
            weight.copy_(torch.where(mask.to(weight.device), weight, 0.0))
    tell = progress or (lambda name: None)
    rows: list[LayerReport] = []
    with torch.inference_mode():
        blocks = {n for n, m in model.named_modules() if hasattr(m, "attn") and hasattr(m, "mlp")}
        layers = {n for n, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d)}
        inputs = _capture_inputs(model, example, blocks | layers)
        refused: dict[str, str] = {}
        for name in sorted(blocks & inputs.keys(), key=list(inputs).index) if native.available() else []:
            tell(name)
            block, choice = _try_block(name, model.get_submodule(name), masks, precision, inputs[name], budget_ms)
            if block is None or choice.name == DENSE:
                refused[name] = choice if block is None else choice.reason
                continue
            _replace(model, name, block)
            rows.append(
                LayerReport(
                    name,
                    "block",
                    "native block",
                    precision,
                    0.0,
                    0.0,
                    choice.ms[DENSE],
                    choice.ms[choice.name],
                    choice.reason,
                )
            )
            for short, path in PATHS.items():
                layer: Any = block.get_submodule(short)
                skipped = max(0.0, 1 - layer.packed().density)
                full = f"{name}.{path}"
                rows.append(
                    LayerReport(
                        full,
                        "linear",
                        "native block",
                        precision,
                        _sparsity(masks.get(full)),
                        skipped,
                        float("nan"),
                        float("nan"),
                        f"part of {name}",
                    )
                )
                layers.discard(full)
        remaining = {n for n, m in model.named_modules() if n in layers}
        convs: list[str] = []
        for name in [n for n in inputs if n in remaining]:
            tell(name)
            module: Any = model.get_submodule(name)
            if isinstance(module, nn.Conv2d):
                convs.append(name)
                continue
            outside = precision if precision != "int8" or masks.get(name) is not None else "bf16"
            candidates = linear_candidates(module, masks.get(name), outside)
            x = inputs[name]
            choice = choose_backend(
                {key: (lambda layer=layer: layer(x)) for key, layer in candidates.items()}, DENSE, budget_ms=budget_ms
            )
            _replace(model, name, candidates[choice.name])
            row = _report(name, "linear", choice, candidates[choice.name], masks.get(name))
            inside = next((b for b in refused if name.startswith(b + ".")), None)
            if inside:
                row = LayerReport(
                    **{**asdict(row), "reason": f"{row.reason}; {inside} is not fused: {refused[inside]}"}
                )
            rows.append(row)
        for name in sorted(layers - inputs.keys()):
            rows.append(_unused(name, model, masks))
    return model, rows


def _unused(name: str, model: nn.Module, masks: Mapping[str, Tensor]) -> LayerReport:
    kind = "linear" if isinstance(model.get_submodule(name), nn.Linear) else "conv2d"
    nan = float("nan")
    sparsity = _sparsity(masks.get(name))
    return LayerReport(name, kind, "dense", "fp32", sparsity, 0.0, nan, nan, "the example does not reach this layer")
