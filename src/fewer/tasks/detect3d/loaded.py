"""What a trained detector remembers of its training, and the scans that it has not seen."""

from __future__ import annotations

from pathlib import Path

import torch

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.models.spec import LoadedModel
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.networks import Detector, DetectorConfig
from fewer.tasks.facts import facts_of

__all__ = ["config_of", "data_for", "detector_of", "scan_tensor", "unseen"]


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
        return open_data(folder, "camera")
    return data


def unseen(loaded: LoadedModel, data: DetectionData) -> tuple[str, ...]:
    """Labelled scans that judged, if the network was trained on this very folder; else all labelled ones."""
    split = facts_of(loaded, "detect3d").split
    names = data.labelled()
    if split is None or real_path(split.data) != real_path(data.root):
        return names
    held = set(split.val)
    return tuple(name for name in names if name in held)


def scan_tensor(points: Floats, config: DetectorConfig, where: object = "the scan") -> torch.Tensor:
    """Points as the network takes them.

    Raises
    ------
    FewerError
        When columns are missing, a value is not finite, or no point lies in the network's reach.
    """
    if points.shape[1] < config.features:
        raise FewerError(f"{where} has {points.shape[1]} columns; this network reads {config.features}")
    scan = torch.from_numpy(points[:, : config.features].astype("float32"))
    if not bool(torch.isfinite(scan).all()):
        raise FewerError(f"{where} holds NaN or infinity; fewer doctor --fix drops such points")
    low, high = torch.tensor(config.reach[:3]), torch.tensor(config.reach[3:])
    if not bool(((scan[:, :3] >= low) & (scan[:, :3] < high)).all(1).any()):
        x0, y0, _, x1, y1, _ = config.reach
        raise FewerError(
            f"no point of {where} lies in the reach of this network (x {x0:g} to {x1:g} m, y {y0:g} to {y1:g} m)"
        )
    return scan
