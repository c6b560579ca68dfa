"""Which published configuration the weights of a checkpoint of OpenPCDet are of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.networks.config import ANCHORS, NUSCENES, DetectorConfig, NetworkName, published_config

__all__ = ["config_of_state"]

_HEAT = re.compile(r"dense_head\.heads_list\.(\d+)\.hm\.1\.weight")


def config_of_state(state: Mapping[str, Tensor], classes: Sequence[str] | None = None) -> DetectorConfig:
    """The published configuration that weights are of.

    Raises
    ------
    FewerError
        When no network is known to have such weights, or they are of other classes than those that are named.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks import build_network, published_state
    >>> state = published_state(build_network(published_config("centerpoint", NUSCENES)))
    >>> config_of_state(state).groups[1]
    ('truck', 'construction_vehicle')
    """
    network = _network(state)
    sizes = _group_sizes(state)
    count = sum(sizes) if sizes else _anchored_classes(state)
    usual = tuple(ANCHORS) if count == len(ANCHORS) else NUSCENES if count == len(NUSCENES) and sizes else None
    named = tuple(classes) if classes is not None else usual
    if named is None or len(named) != count:
        told = f"{len(named)} are named" if named is not None else "it does not say their names"
        raise FewerError(f"the checkpoint knows {count} classes, and {told}; name them in the order of its outputs")
    config = published_config(network, named)
    if not sizes:
        return config
    groups, start = [], 0
    for size in sizes:
        groups.append(named[start : start + size])
        start += size
    velocity = "dense_head.heads_list.0.vel.1.weight" in state
    changes = {"groups": tuple(groups) if len(groups) > 1 else (), "velocity": velocity}
    return DetectorConfig.of({**config.model_dump(), **changes})


def _network(state: Mapping[str, Tensor]) -> NetworkName:
    def has(start: str) -> bool:
        return any(name.startswith(start) for name in state)

    pillars, centres = has("vfe.pfn_layers."), has("dense_head.heads_list.")
    if has("roi_head.") and has("pfe."):
        return "pv-rcnn"
    if not (has("backbone_2d.blocks.") and has("dense_head.") and (pillars or has("backbone_3d.conv_input."))):
        raise FewerError("it holds no network that is known here (PointPillars, SECOND, CenterPoint, PV-RCNN)")
    if pillars:
        return "centerpoint-pillar" if centres else "pointpillars"
    return "centerpoint" if centres else "second"


def _group_sizes(state: Mapping[str, Tensor]) -> list[int]:
    """Classes of each centre head."""
    found = {int(match[1]): len(tensor) for name, tensor in state.items() if (match := _HEAT.fullmatch(name))}
    return [found[number] for number in sorted(found)]


def _anchored_classes(state: Mapping[str, Tensor]) -> int:
    """Two priors of seven numbers for each class."""
    head = state.get("dense_head.conv_box.weight")
    if head is None or len(head) % 14:
        raise FewerError("its head does not have two priors for each class; heads of several groups are not known here")
    return len(head) // 14
