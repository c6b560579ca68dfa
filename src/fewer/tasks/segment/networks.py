"""Networks for segmentation by a short name, and one interface to what they put out: a list of scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.models.monai import monai_network
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.segment.settings import TrainSettings

__all__ = ["NETWORKS", "build_network", "check_network", "scales"]


def _widths(settings: TrainSettings) -> list[int]:
    return [settings.width * 2**level for level in range(settings.levels)]


def _unet(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    extra = {"channels": _widths(settings), "strides": [2] * (settings.levels - 1)}
    return "UNet", common | extra | {"num_res_units": 1, "dropout": settings.dropout}


def _dynunet(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    levels, heads = settings.levels, len(settings.scale_weights) - 1
    if levels < 3:
        raise FewerError(f"dynunet has 3 levels or more; give --levels 3, not {levels}")
    if heads > levels - 2:
        raise FewerError(f"dynunet with {levels} levels has {levels - 1} outputs; {heads + 1} are to be supervised")
    strides = [1] + [2] * (levels - 1)
    extra = {"kernel_size": [3] * levels, "strides": strides, "upsample_kernel_size": strides[1:]}
    deep = {"deep_supervision": True, "deep_supr_num": heads} if heads else {}
    return "DynUNet", common | extra | {"filters": _widths(settings)} | deep


def _segresnet(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    heads = len(settings.scale_weights)
    if heads > settings.levels - 1:
        raise FewerError(
            f"segresnet with {settings.levels} levels has {settings.levels - 1} outputs; {heads} are asked"
        )
    blocks = [1] * settings.levels
    return "SegResNetDS", common | {
        "init_filters": settings.width, "blocks_down": blocks, "norm": "instance", "dsdepth": heads,
    }  # fmt: skip


def _mednext(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    heads, levels = len(settings.scale_weights), settings.levels
    if heads > 1 and heads != levels:
        raise FewerError(
            f"mednext with {levels} levels supervises all of its {levels} outputs or only one; not {heads}"
        )
    blocks = [1] * (levels - 1)
    extra = {"init_filters": settings.width, "blocks_down": blocks, "blocks_up": blocks, "blocks_bottleneck": 1}
    return "MedNeXt", common | extra | {"kernel_size": 5, "deep_supervision": heads > 1}


def _attention(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    extra = {"channels": _widths(settings), "strides": [2] * (settings.levels - 1)}
    return "AttentionUnet", common | extra | {"dropout": settings.dropout}


def _basic(common: dict[str, Any], settings: TrainSettings) -> tuple[str, dict[str, Any]]:
    if settings.levels != 5:
        raise FewerError(f"basic-unet always has 5 levels; give --levels 5, not {settings.levels}")
    features = [*_widths(settings), settings.width]
    return "BasicUNet", common | {"features": features, "dropout": settings.dropout}


NETWORKS: dict[str, Callable[[dict[str, Any], TrainSettings], tuple[str, dict[str, Any]]]] = {
    "unet": _unet,
    "dynunet": _dynunet,
    "segresnet": _segresnet,
    "mednext": _mednext,
    "attention-unet": _attention,
    "basic-unet": _basic,
}
"""Short names, and the MONAI class and arguments that settings make of each."""

ONE_OUTPUT = ("unet", "attention-unet", "basic-unet")


def build_network(settings: TrainSettings, dims: int, channels: int, outputs: int) -> LoadedModel:
    """Build a network with seeded random weights.

    Parameters
    ----------
    settings
        Name, width, levels, deep supervision and seed.
    dims
        2 or 3.
    channels, outputs
        Of the input, and of the output.

    Returns
    -------
    LoadedModel
        Its ``source`` builds the same architecture again, with the outputs of deep supervision.

    Raises
    ------
    FewerError
        For an unknown name, or a network that cannot do what is asked.

    Examples
    --------
    >>> loaded = build_network(TrainSettings(width=4, levels=3), 2, 1, 2)  # doctest: +SKIP
    >>> loaded.model(torch.zeros(1, 1, 16, 16)).shape  # doctest: +SKIP
    torch.Size([1, 2, 16, 16])
    """
    torch.manual_seed(settings.seed)
    if ".py" in settings.network:
        return load_model(settings.network)
    if settings.network not in NETWORKS:
        raise FewerError(f"unknown network {settings.network!r}{near_match(settings.network, NETWORKS)}")
    if len(settings.scale_weights) > 1 and settings.network in ONE_OUTPUT:
        raise FewerError(f"{settings.network} has one output; for deep supervision take dynunet or segresnet")
    common = {"spatial_dims": dims, "in_channels": channels, "out_channels": outputs}
    name, args = NETWORKS[settings.network](common, settings)
    source = {"kind": "monai", "name": name, "args": args}
    return LoadedModel(monai_network(name, args), settings.network, source)


def scales(output: Any, dims: int) -> list[Tensor]:
    """The outputs of a network as a list, full resolution first, whatever form it gives them.

    Parameters
    ----------
    output
        A tensor ``(batch, classes, *space)``; a list, tuple or mapping of such tensors; or one tensor
        ``(batch, scales, classes, *space)``, as DynUNet gives it in training.
    dims
        2 or 3.

    Examples
    --------
    >>> [tuple(t.shape) for t in scales(torch.zeros(1, 3, 2, 8, 8), 2)]
    [(1, 2, 8, 8), (1, 2, 8, 8), (1, 2, 8, 8)]
    """
    if isinstance(output, Tensor):
        return list(output.unbind(1)) if output.ndim == dims + 3 else [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)) and output and all(isinstance(one, Tensor) for one in output):
        return list(output)
    raise FewerError(f"a segmentation network puts out a tensor or a list of tensors; got {type(output).__name__}")


def check_network(model: nn.Module, name: str, channels: int, outputs: int, patch: tuple[int, ...]) -> None:
    """Run a network once and see that its output fits; on meta tensors where it can, else for real.

    Raises
    ------
    FewerError
        With the shape that came out and the one that is needed.
    """
    example = torch.zeros(1, channels, *patch)
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            full = scales(model(example), len(patch))[0]
    except FewerError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FewerError(f"the network {name} does not run on an input of {tuple(example.shape)}: {reason}") from error
    finally:
        model.train(was)
    if tuple(full.shape) != (1, outputs, *patch):
        raise FewerError(
            f"the network {name} makes {tuple(full.shape)} of an input of {tuple(example.shape)}; "
            f"{outputs} classes need {(1, outputs, *patch)}"
        )
