"""Checkpoints of OpenPCDet as run folders, and its configuration files as descriptions of a detector.

A checkpoint holds weights alone. Which network it is, its classes' groups and its columns can be read off them; the
field, the cells and the priors cannot. They are those of the configuration that is published with the weights of KITTI
and nuScenes, or of the configuration file that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.models.options import read_checkpoint
from fewer.models.spec import LoadedModel
from fewer.tasks.detect3d.networks import Detector, build_network
from fewer.tasks.detect3d.networks.build import load_published
from fewer.tasks.detect3d.networks.published import config_of_state
from fewer.tasks.detect3d.openpcdet_file import camera_view, config_of_file
from fewer.tasks.detect3d.training import save_detector, source_of

__all__ = ["fill", "model_of", "open_published", "published_run"]


def open_published(
    checkpoint: str | Path, *, config: str | Path | None = None, classes: Sequence[str] | None = None
) -> Detector:
    """A detector with the weights of a checkpoint of OpenPCDet.

    Parameters
    ----------
    checkpoint
        A ``.pth`` file as OpenPCDet's training writes it, or its weights as safetensors. No code in it is run.
    config
        The configuration file (``.yaml``) that it was trained with; by default those of KITTI and nuScenes that
        OpenPCDet publishes weights of.
    classes
        Names of the classes in the order of the outputs, where neither the file nor the data sets' own names do.

    Raises
    ------
    FewerError
        When the file is no checkpoint of a network that is known here, or of another one than the configuration tells.

    Examples
    --------
    >>> open_published("cbgs_voxel0075_centerpoint_nds_6648.pth").config.network  # doctest: +SKIP
    'centerpoint'
    """
    return _opened(read_checkpoint(checkpoint), checkpoint, config, classes)


def _opened(
    state: Mapping[str, Tensor], checkpoint: str | Path, config: str | Path | None, classes: Sequence[str] | None = None
) -> Detector:
    try:
        if config is not None:
            found = config_of_file(config)
            if classes is not None and tuple(classes) != found.classes:
                raise FewerError(f"{config} names the classes {', '.join(found.classes)}; leave classes out")
        else:
            found = config_of_state(state, classes)
        detector = build_network(found)
        load_published(detector, state)
    except FewerError as error:
        raise FewerError(f"{checkpoint}: {error}") from None
    return detector.eval()


def model_of(state: Mapping[str, Tensor], name: str, config: str | None = None) -> LoadedModel | None:
    """The model of a checkpoint that is given in the place of a run; None where its names are of no such network.

    Parameters
    ----------
    state
        Weights by name.
    name
        The file.
    config
        See :func:`open_published`.

    Raises
    ------
    FewerError
        When the weights are of a network of OpenPCDet that is not known here, or do not fit the configuration.
    """
    if not any(key.startswith("dense_head.") for key in state) or not any(k.startswith("backbone_2d.") for k in state):
        return None
    detector = _opened(state, name, config)
    source, meta = source_of(detector, None, _view(detector, config))
    return LoadedModel(detector, name, source, task="detect3d", meta=meta)


def fill(model: nn.Module, state: Mapping[str, Tensor], name: str) -> bool:
    """Put the weights of a checkpoint of OpenPCDet into a detector; False where they are laid out as its own.

    Raises
    ------
    FewerError
        When they are of another network, width or grid.
    """
    own = {key: tensor.shape for key, tensor in model.state_dict().items()}
    if not isinstance(model, Detector) or {key: tensor.shape for key, tensor in state.items()} == own:
        return False
    try:
        load_published(model, state)
    except FewerError as error:
        raise FewerError(f"{name}: {error}") from None
    return True


def _view(detector: Detector, config: str | Path | None) -> str:
    camera = camera_view(config) if config is not None else detector.config.has_anchors
    return "camera" if camera else "full"


def published_run(
    checkpoint: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    classes: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint of OpenPCDet as a run folder, for ``fewer eval``, ``predict``, ``compress`` and the others.

    Networks of KITTI see what its camera sees, as OpenPCDet trains them, wherever there is a calibration.

    Parameters
    ----------
    checkpoint, config, classes
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
    >>> published_run("pv_rcnn_8369.pth", "pv-rcnn/")  # doctest: +SKIP
    PosixPath('pv-rcnn')
    """
    detector = open_published(checkpoint, config=config, classes=classes)
    with RunFolder.create(out, overwrite=overwrite) as run:
        with run.together():
            save_detector(run.path, detector, None, _view(detector, config))
        return run.home
