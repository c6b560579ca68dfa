"""Networks by name and size, and published weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from fewer.core.errors import FewerError, near_match
from fewer.tasks.gait.networks.config import NetworkConfig
from fewer.tasks.gait.networks.deepgaitv2 import DeepGaitV2
from fewer.tasks.gait.networks.gaitbase import GaitBase
from fewer.tasks.gait.networks.gaitgl import GaitGL
from fewer.tasks.gait.networks.gaitpart import GaitPart
from fewer.tasks.gait.networks.gaitset import GaitSet
from fewer.tasks.gait.networks.network import GaitNetwork

__all__ = ["NETWORKS", "SIZES", "build_network", "load_published"]

NETWORKS: dict[str, str] = {
    "gaitset": "frames as a set, pyramids of strips (AAAI 2019)",
    "gaitpart": "focal convolutions and short movements of parts (CVPR 2020)",
    "gaitgl": "global and local convolutions over space and time (ICCV 2021)",
    "gaitbase": "a small ResNet for frames with BNNecks (CVPR 2023)",
    "deepgaitv2": "a residual network with pseudo-3-D blocks (2023)",
}
"""What can be trained, and what it is."""

_MADE: dict[str, type[GaitNetwork]] = {
    "gaitset": GaitSet,
    "gaitpart": GaitPart,
    "gaitgl": GaitGL,
    "gaitbase": GaitBase,
    "deepgaitv2": DeepGaitV2,
}

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "gaitset": {"tiny": {"channels": (4, 8, 8), "outs": 16}, "small": {"channels": (16, 24, 32), "outs": 64}},
    "gaitpart": {"tiny": {"channels": (4, 8, 8), "outs": 16}, "small": {"channels": (16, 24, 32), "outs": 64}},
    "gaitgl": {"tiny": {"channels": (4, 8, 8)}, "small": {"channels": (8, 16, 32)}},
    "gaitbase": {
        "tiny": {"channels": (8, 16, 24, 32), "outs": 16, "stem": 2},
        "small": {"channels": (16, 24, 48, 64), "outs": 64, "stem": 2},
    },
    "deepgaitv2": {
        "tiny": {"channels": (8, 16, 16, 32), "stem": 2},
        "small": {"channels": (16, 24, 48, 64), "stem": 2},
    },
}
"""Widths for tests and for a few cores; ``published`` has those of OpenGait's configurations for CASIA-B."""


def build_network(config: NetworkConfig | Mapping[str, Any]) -> GaitNetwork:
    """A network with random weights.

    Raises
    ------
    FewerError
        When the configuration is none.

    Examples
    --------
    >>> net = build_network({"network": "gaitbase", "size": "tiny"})
    >>> import torch
    >>> net.eval()(torch.zeros(2, 5, 64, 44)).shape
    torch.Size([2, 16, 16])
    """
    if not isinstance(config, NetworkConfig):
        name = str(config.get("network", "gaitbase"))
        if name not in NETWORKS:
            raise FewerError(f"unknown gait network {name!r}{near_match(name, NETWORKS)}")
        try:
            config = NetworkConfig.model_validate(dict(config))
        except ValidationError as error:
            first = error.errors()[0]
            raise FewerError(f"the gait network's {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    args = dict(SIZES[config.network].get(config.size, {}))
    if config.network in ("gaitgl", "gaitbase", "deepgaitv2"):
        args["classes"] = config.classes
    if config.layers is not None:
        if config.network not in ("gaitbase", "deepgaitv2"):
            raise FewerError(f"{config.network} has no residual stages; leave out the layers")
        if not all(1 <= count <= 64 for count in config.layers):
            raise FewerError(f"the stages have {config.layers} blocks; each needs 1 to 64")
        args["layers"] = config.layers
    args |= _widths(config)
    network = _MADE[config.network](**args, tpa=config.tpa)
    network.config = config
    return network


def _widths(config: NetworkConfig) -> dict[str, Any]:
    """Widths of a network that has others than those of its size."""
    found: dict[str, Any] = {}
    if config.channels is not None:
        wanted = 4 if config.network in ("gaitbase", "deepgaitv2") else 3
        if len(config.channels) != wanted or not all(1 <= width <= 4096 for width in config.channels):
            raise FewerError(f"{config.network} has {wanted} widths from 1 to 4096, not {config.channels}")
        found["channels"] = config.channels
    if config.outs is not None:
        if config.network not in ("gaitset", "gaitpart", "gaitbase"):
            raise FewerError(f"the embedding of {config.network} is as wide as a stage; leave out the outs")
        found["outs"] = config.outs
    return found


def load_published(network: GaitNetwork, state: Mapping[str, Tensor]) -> None:
    """Load the weights of an OpenGait checkpoint, strictly.

    Parameters
    ----------
    network
        Of the size ``published``, with as many classes and layers as the checkpoint, without TPA.
    state
        The checkpoint's ``model`` as tensors; save it as safetensors where it was made.

    Raises
    ------
    FewerError
        When names or shapes do not fit.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        told = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r}"
        raise FewerError(f"the checkpoint is of another network than {network.config.network}: it {told}")
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise FewerError(
                f"{name!r} has shape {tuple(state[name].shape)} in the checkpoint and {tuple(value.shape)} here; "
                "set the size and the number of classes"
            )
    network.load_state_dict(dict(state))
