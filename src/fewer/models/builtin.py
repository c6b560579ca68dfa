"""The nets that come with the library: how to build each, where its weights are, how its input is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.data import assets
from fewer.data.preprocess import Preprocess
from fewer.models.digits import DigitNet
from fewer.models.mobilenet import MobileNetV2
from fewer.models.vit import VisionTransformer, resize_position_embedding

_DINOV2_SMALL = {"image_size": 224, "patch_size": 14, "width": 384, "depth": 12, "heads": 6, "layer_scale": 1.0}


@dataclass(frozen=True)
class Builtin:
    """One net: its class, its arguments, its weights (None: random), its preprocessing and task."""

    cls: Callable[..., nn.Module]
    args: Mapping[str, Any]
    state: Callable[[], dict[str, Tensor]] | None
    preprocess: Preprocess
    task: str


def _dinov2_small_224() -> dict[str, Tensor]:
    state = assets.dinov2_small_state()
    # resampled once here, so that the model has no input-dependent shape in it
    grid = _DINOV2_SMALL["image_size"] // _DINOV2_SMALL["patch_size"]
    state["pos_embed"] = resize_position_embedding(state["pos_embed"], int(grid))
    return state


def _digits(side: int, mean: float, std: float) -> Preprocess:
    return Preprocess((1, side, side), mean=(mean,), std=(std,), crop=1.0)


MODELS: dict[str, Builtin] = {
    "dinov2-small": Builtin(VisionTransformer, _DINOV2_SMALL, _dinov2_small_224, Preprocess(), "features"),
    "mobilenet-v2": Builtin(
        MobileNetV2, {}, assets.mobilenet_v2_state, Preprocess(interpolation="bilinear"), "classify"
    ),
    "mnist-cnn": Builtin(
        DigitNet, {}, partial(assets.digits_state, "mnist-cnn"), _digits(28, 0.1307, 0.3081), "classify"
    ),
    "usps-cnn": Builtin(
        DigitNet,
        {"side": 16, "norm": True},
        partial(assets.digits_state, "usps-cnn"),
        _digits(16, 0.2471, 0.2994),
        "classify",
    ),
    "vit-small-16": Builtin(VisionTransformer, {"num_classes": 1000}, None, Preprocess(crop=0.9), "classify"),
    "vit-base-16": Builtin(
        VisionTransformer, {"width": 768, "heads": 12, "num_classes": 1000}, None, Preprocess(crop=0.9), "classify"
    ),
}


def entry(name: str) -> Builtin:
    """The table row of a net.

    Raises
    ------
    FewerError
        For an unknown name, with the nearest known one.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, 1, 0.4)
        hint = f"did you mean 'fewer/{near[0]}'?" if near else f"known: {', '.join(sorted(MODELS))}"
        raise FewerError(f"unknown model 'fewer/{name}'; {hint}")
    return MODELS[name]


def build(name: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a net with random weights; ``args`` override the arguments of the table."""
    row = entry(name)
    return row.cls(**{**row.args, **(args or {})})
