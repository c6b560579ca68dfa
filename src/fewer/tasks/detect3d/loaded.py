"""What a trained detector remembers of its training, and the scans that it has not seen."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.models.spec import LoadedModel
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.networks import Detector, DetectorConfig
from fewer.tasks.facts import facts_of

_APART = 20
"""So many times brighter or darker are intensities of another kind; sensors of one kind differ by less."""

_DARK = 0.01
"""Below this, all intensities from 0 to 1 are about nothing."""

__all__ = ["columns_for", "config_of", "data_for", "detector_of", "scan_tensor", "unseen"]


def detector_of(loaded: LoadedModel) -> Detector:
    """The network of a run.

    Raises
    ------
    FewerError
        When the run is of another kind.
    """
    if not isinstance(loaded.model, Detector):
        raise FewerError(f"{loaded.name} holds no detector; train one: fewer train DATA --task detect3d --out RUN")
    return loaded.model


def config_of(loaded: LoadedModel) -> DetectorConfig:
    """What the network of a run is made of."""
    return detector_of(loaded).config


def data_for(loaded: LoadedModel, folder: str | Path) -> DetectionData:
    """A folder, seen as the training has seen its own: whole scans, or the camera's view where there is one."""
    data = open_data(folder)
    if facts_of(loaded, "detect3d").view == "camera" and data.calibrations is not None:
        data = open_data(folder, "camera")
    if told := _other_intensities(loaded, data):
        warnings.warn(f"fewer: {told}", stacklevel=2)
    return data


def _other_intensities(loaded: LoadedModel, data: DetectionData) -> str:
    """A sentence where intensities are of another kind than those that trained the network; else nothing."""
    facts = facts_of(loaded, "detect3d")
    if config_of(loaded).features < 4 or facts.split is None or data.bright is None:
        return ""
    if facts.bright is None:
        if data.brightest == 1:
            return ""
        return (
            f"intensities of {data.root} from 0 to {data.brightest:g} are brought to 0 to 1; {loaded.name} does not "
            "say on which it was trained: if its boxes are poor, train it again"
        )
    low, high = sorted((abs(facts.bright), abs(data.bright)))
    if high <= _APART * max(low, _DARK):
        return ""
    return (
        f"bright points of {data.root} have an intensity of {data.bright:.3g}, and those that trained {loaded.name} "
        f"had {facts.bright:.3g}: expect poor boxes, or bring the fourth column to the same scale"
    )


def unseen(loaded: LoadedModel, data: DetectionData) -> tuple[str, ...]:
    """Labelled scans that judged, if the network was trained on this very data; else all labelled ones."""
    split = facts_of(loaded, "detect3d").split
    names = data.labelled()
    if split is None or not split.is_of(data.root, names):
        return names
    held = set(split.val)
    return tuple(name for name in names if name in held)


def columns_for(points: Floats, config: DetectorConfig, where: object = "the scan") -> Floats:
    """The columns of a scan that a network reads, float32, as it was trained to see them.

    Intensities of 0 to 1 are brought to the network's own scale. A network that reads ages gets those of the fifth
    column; where that holds rings (whole numbers), or is missing, the scan is a single one, whose points are all new.

    Raises
    ------
    FewerError
        When columns are missing.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import published_config
    >>> rings = np.array([[1.0, 2, 0, 0.2, 7]])
    >>> columns_for(rings, published_config("centerpoint")).tolist()
    [[1.0, 2.0, 0.0, 51.0, 0.0]]
    """
    rows = np.array(points[:, : config.features], dtype=np.float32)
    if config.ages and rows.shape[1] == 4:
        rows = np.concatenate([rows, np.zeros((len(rows), 1), np.float32)], 1)
    elif config.ages and rows.shape[1] == 5 and bool((rows[:, 4] == np.floor(rows[:, 4])).all()):
        rows[:, 4] = 0
    if rows.shape[1] < config.features:
        raise FewerError(f"{where} has {rows.shape[1]} columns; this network reads {config.features}")
    if config.features > 3 and config.brightest != 1:
        rows[:, 3] *= config.brightest
    return rows


def scan_tensor(points: Floats, config: DetectorConfig, where: object = "the scan") -> torch.Tensor:
    """Points as the network takes them.

    Raises
    ------
    FewerError
        When columns are missing, a value is not finite, or no point lies in the network's reach.
    """
    scan = torch.from_numpy(columns_for(points, config, where))
    if not bool(torch.isfinite(scan).all()):
        told = "fewer doctor DATA --fix --out FOLDER drops such points"
        raise FewerError(f"intensities of {where} are NaN or infinite; {told}")
    low, high = torch.tensor(config.reach[:3]), torch.tensor(config.reach[3:])
    if not bool(((scan[:, :3] >= low) & (scan[:, :3] < high)).all(1).any()):
        x0, y0, _, x1, y1, _ = config.reach
        raise FewerError(
            f"no point of {where} lies in the reach of this network (x {x0:g} to {x1:g} m, y {y0:g} to {y1:g} m)"
        )
    return scan
