"""Checkpoints of OpenGait as run folders, which every verb takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.models.options import read_checkpoint
from fewer.models.spec import LoadedModel
from fewer.tasks.gait.data.silhouettes import SIZE
from fewer.tasks.gait.networks import NETWORKS, GaitNetwork, NetworkConfig, build_network
from fewer.tasks.gait.networks.build import SIZES, load_published

__all__ = ["model_of", "open_published", "published_run"]

_SIGNS = {
    "gaitset": "set_block1.",
    "gaitpart": "TFA.",
    "gaitgl": "GLConvA0.",
    "deepgaitv2": "layer0.",
    "gaitbase": "Backbone.forward_block.conv1.",
}
"""How names of parameters begin in one network alone."""
_WIDTHS = {
    "gaitset": tuple(f"set_block{k}.forward_block.0.conv.weight" for k in (1, 2, 3)),
    "gaitgl": ("conv3d.0.conv3d.weight", *(f"GLConvA{k}.global_conv3d.conv3d.weight" for k in (0, 1))),
    "gaitbase": tuple(f"Backbone.forward_block.layer{k}.0.conv1.weight" for k in (1, 2, 3, 4)),
    "deepgaitv2": (
        "layer1.forward_block.0.conv1.weight",
        *(f"layer{k}.0.conv1.forward_block.0.weight" for k in (2, 3, 4)),
    ),
}
"""Layers whose outputs are the widths; GaitPart's other forms have other strips, which no weight tells."""
_OUTS = {"gaitset": "Head.fc_bin", "gaitbase": "FCs.fc_bin"}
_FRAMES = 30


def open_published(checkpoint: str | Path) -> GaitNetwork:
    """A network with the weights of a checkpoint of OpenGait; which one, and how large, is read off the weights.

    Parameters
    ----------
    checkpoint
        A ``.pt`` file as OpenGait's training writes it, or its weights as safetensors. No code in it is run.

    Raises
    ------
    FewerError
        When the file is no checkpoint of a network that is known here.

    Examples
    --------
    >>> open_published("GaitBase_DA-60000.pt").config.network  # doctest: +SKIP
    'gaitbase'
    """
    state = _plain(read_checkpoint(checkpoint))
    if (name := _network(state)) is None:
        raise FewerError(f"{checkpoint} is of no network that is known here; known are {', '.join(NETWORKS)}")
    return _opened(state, name, checkpoint)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in state.items()}


def _network(state: Mapping[str, Tensor]) -> str | None:
    return next((name for name, sign in _SIGNS.items() if any(key.startswith(sign) for key in state)), None)


def _opened(state: Mapping[str, Tensor], name: str, checkpoint: str | Path) -> GaitNetwork:
    config = NetworkConfig(network=name, size="published", classes=_classes(state), layers=_layers(name, state))  # type: ignore[arg-type]
    network = build_network(config)
    try:
        if {k: v.shape for k, v in network.state_dict().items()} != {k: v.shape for k, v in state.items()}:
            network = build_network(config.model_copy(update=_widths(name, state)))
        load_published(network, state)
        _refuse_own(network.config)
    except FewerError as error:
        raise FewerError(f"{checkpoint}: {error}") from None
    return network.eval()


def _classes(state: Mapping[str, Tensor]) -> int:
    """Persons of the training; their number stands in the last layer alone."""
    last = next((state[key] for key in ("BNNecks.fc_bin", "Head1.fc_bin") if key in state), None)
    return int(last.shape[2]) if last is not None and last.ndim == 3 and last.shape[2] else 74


def _widths(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Widths of a network, such as those of GaitSet for OU-MVLP and GREW, which are twice those for CASIA-B."""
    keys = _WIDTHS.get(name, ())
    if not keys or not all(key in state for key in keys):
        return {}
    channels = tuple(int(state[key].shape[0]) for key in keys)
    outs = state.get(_OUTS.get(name, ""))
    return {"channels": channels} | ({"outs": int(outs.shape[2])} if outs is not None and outs.ndim == 3 else {})


def _refuse_own(config: NetworkConfig) -> None:
    """Stop at widths of ours whose first layer has another stride, which no weight tells."""
    for size in ("tiny", "small"):
        own = SIZES[config.network][size]
        if "stem" in own and config.channels == own["channels"]:
            raise FewerError(f"these are the widths of our own size {size}; give the run folder of its training")


def _layers(name: str, state: Mapping[str, Tensor]) -> tuple[int, int, int, int] | None:
    """Blocks of the four stages, which differ between data sets."""
    if name not in ("gaitbase", "deepgaitv2"):
        return None
    counts = []
    for stage in range(1, 5):
        found = (re.search(rf"(?:^|\.)layer{stage}\.(?:forward_block\.)?(\d+)\.", key) for key in state)
        numbers = {int(match.group(1)) for match in found if match and len(match.group(1)) < 3}
        counts.append(max(1, len(numbers)))
    return (counts[0], counts[1], counts[2], counts[3])


def model_of(state: Mapping[str, Tensor], name: str) -> LoadedModel | None:
    """The model of a checkpoint that is given in the place of a run; None where its names are of no such network.

    Raises
    ------
    FewerError
        When the weights are of a network of OpenGait that is not known here.
    """
    plain = _plain(state)
    kind = _network(plain)
    if kind is None or not any("fc_bin" in key for key in plain):
        return None
    network = _opened(plain, kind, name)
    source, meta = _described(network)
    return LoadedModel(network, name, source, task="gait", meta=meta)


def _described(network: GaitNetwork) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a network is built again, and what is kept with it."""
    source = {
        "kind": "task", "task": "gait", "name": network.config.network, "args": network.config.model_dump(mode="json"),
    }  # fmt: skip
    return source, {"task": "gait", "model": network.config.network, "input_size": [_FRAMES, SIZE, 44]}


def published_run(checkpoint: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write a checkpoint of OpenGait as a run folder, for ``fewer eval``, ``predict``, ``compress`` and the others.

    Parameters
    ----------
    checkpoint
        See :func:`open_published`.
    out
        Run folder.
    overwrite
        Replace a run that is there.

    Raises
    ------
    FewerError
        When the checkpoint does not fit, or the folder cannot be used.

    Examples
    --------
    >>> published_run("GaitBase_DA-60000.pt", "gaitbase/")  # doctest: +SKIP
    PosixPath('gaitbase')
    """
    network = open_published(checkpoint)
    source, meta = _described(network)
    with RunFolder.create(out, overwrite=overwrite) as run:
        with run.together():
            save_artefact(run.path, network, [], source, meta)
        return run.home
