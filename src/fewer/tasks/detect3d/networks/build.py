"""Build a detector from its description, and bring published weights into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewer.core.errors import FewerError, near_match
from fewer.models.sparse import SparseConvolution
from fewer.tasks.detect3d.networks.config import DetectorConfig
from fewer.tasks.detect3d.networks.detector import Detector
from fewer.tasks.detect3d.networks.flat import UpConv

__all__ = ["build_network", "load_published", "published_state"]


def build_network(config: DetectorConfig | Mapping[str, Any]) -> Detector:
    """A detector with random weights, in evaluation mode.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> build_network(small_config("second").model_dump(mode="json")).config.network
    'second'
    """
    return Detector(config if isinstance(config, DetectorConfig) else DetectorConfig.of(_tuples(config))).eval()


def _tuples(value: Any) -> Any:
    """JSON knows lists alone, the settings tuples."""
    if isinstance(value, Mapping):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, (list, tuple)) else value


def published_state(detector: Detector) -> dict[str, Tensor]:
    """The state of a detector in the shapes of OpenPCDet with spconv 2: what a published checkpoint would hold.

    Sparse convolutions become (out, z, y, x, in), transposed ones (in, out, factor, factor).
    """
    state = {name: tensor.detach().clone() for name, tensor in detector.state_dict().items()}
    for name, module in detector.named_modules():
        key = f"{name}.weight"
        if isinstance(module, SparseConvolution):
            state[key] = state[key].permute(0, 2, 3, 4, 1).contiguous()
        elif isinstance(module, UpConv):
            f = module.factor
            state[key] = state[key].view(-1, f, f, module.in_channels).permute(3, 0, 1, 2).contiguous()
    return state


def load_published(detector: Detector, state: Mapping[str, Tensor]) -> None:
    """Load the ``model_state`` of an OpenPCDet checkpoint; every name and every shape must fit.

    Checkpoints of spconv 1 and 2 are told apart by the shapes of their weights.

    Raises
    ------
    FewerError
        When a tensor is missing, unknown, or of another grid or width.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> net = build_network(small_config("second"))
    >>> load_published(net, published_state(net))
    """
    own, given = published_state(detector), dict(state)
    # older checkpoints lack the counter of steps, and layers for the loss hold nothing that counts
    given.setdefault("global_step", own["global_step"])
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        name = (missing or unknown)[0]
        what = f"lacks {name!r}" if missing else f"holds {name!r}, which this network has not"
        raise FewerError(
            f"the checkpoint {what}{near_match(name, given if missing else own)}; it is of another network"
        )
    modules = dict(detector.named_modules())
    for name, tensor in own.items():
        module, value = modules.get(name.rpartition(".")[0]), given[name]
        if isinstance(module, SparseConvolution) and value.ndim == 5 and name.endswith("weight"):
            kernel = module.kernel_size
            if tuple(value.shape[:3]) == kernel and value.shape[3:] == (module.in_channels, module.out_channels):
                value = value.permute(4, 0, 1, 2, 3)  # spconv 1
        if value.shape != tensor.shape:
            raise FewerError(
                f"{name!r} has the shape {tuple(value.shape)} in the checkpoint and {tuple(tensor.shape)} here: "
                "it is of another grid, width or list of classes"
            )
        if isinstance(module, SparseConvolution) and name.endswith("weight"):
            value = value.permute(0, 4, 1, 2, 3)
        elif isinstance(module, UpConv):
            value = value.permute(1, 2, 3, 0).reshape(-1, module.in_channels, 1, 1)
        given[name] = value.contiguous()
    detector.load_state_dict(given, strict=True)
