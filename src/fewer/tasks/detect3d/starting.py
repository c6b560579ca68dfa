"""What the training of a detector goes on from: a trained run, or weights that OpenPCDet has published."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.models.artefact import RECIPE
from fewer.models.options import read_checkpoint
from fewer.models.recipe import read_recipe
from fewer.models.spec import load_model
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.networks import Detector, DetectorConfig
from fewer.tasks.detect3d.networks.build import load_published
from fewer.tasks.detect3d.settings import TrainSettings

__all__ = ["begin", "config_to_start_from"]


def config_to_start_from(settings: TrainSettings) -> DetectorConfig | None:
    """The network of the run in ``init``, with its classes, priors and field; None where no run is given.

    Raises
    ------
    FewerError
        When there is nothing to go on from, the run is compressed, or other settings ask for another network.
    """
    if settings.init is None:
        return None
    place = Path(settings.init)
    if not (place / RECIPE).is_file():
        if place.is_file():
            return None
        raise FewerError(f"--init {settings.init} is neither a run folder nor a file of weights")
    config = detector_of(load_model(settings.init)).config
    if read_recipe(place / RECIPE).units:
        raise FewerError(
            f"{settings.init} is compressed, and a training would lose what was cut; train its dense detector, or "
            f"improve it as it is: fewer recover {settings.init}"
        )
    asked = settings.model_fields_set
    if "network" in asked and settings.network != config.network:
        raise FewerError(f"the run {settings.init} holds {config.network}, not {settings.network}; leave --network out")
    if "classes" in asked and settings.classes != config.classes:
        raise FewerError(
            f"the run {settings.init} knows {', '.join(config.classes)}, not {', '.join(settings.classes)}; leave "
            "--classes out, or train without --init"
        )
    return config


def begin(model: Detector, init: str) -> None:
    """Put the weights of a run, or of a checkpoint of OpenPCDet, into a detector.

    Raises
    ------
    FewerError
        When they are of another network, width or grid.
    """
    if (Path(init) / RECIPE).is_file():
        model.load_state_dict(detector_of(load_model(init)).state_dict())
    else:
        load_published(model, read_checkpoint(init))
