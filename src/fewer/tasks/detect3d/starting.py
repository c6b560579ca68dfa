"""What the training of a detector goes on from: a trained run, or weights that OpenPCDet has published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.models.artefact import RECIPE
from fewer.models.options import read_checkpoint
from fewer.models.recipe import read_recipe
from fewer.models.spec import load_model
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.networks import Detector, DetectorConfig
from fewer.tasks.detect3d.networks.build import load_published
from fewer.tasks.detect3d.networks.published import config_of_state
from fewer.tasks.detect3d.openpcdet_file import config_of_file
from fewer.tasks.detect3d.settings import TrainSettings

__all__ = ["begin", "config_to_start_from"]


def config_to_start_from(settings: TrainSettings) -> DetectorConfig | None:
    """The network of the run or the published checkpoint in ``init``, with its classes, priors and field.

    None where there is none, and for weights of a small size, which do not say what they are of.

    Raises
    ------
    FewerError
        When there is nothing to go on from, the run is compressed, or other settings ask for another network.
    """
    if settings.init is None:
        if settings.init_config is not None:
            raise FewerError("--init-config describes the weights of --init; give both")
        return None
    place = Path(settings.init)
    if not (place / RECIPE).is_file():
        if place.is_file():
            return _config_of_weights(settings, settings.init)
        raise FewerError(f"--init {settings.init} is neither a run folder nor a file of weights")
    if settings.init_config is not None:
        raise FewerError(f"the run {settings.init} knows its own network; leave --init-config out")
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


def _config_of_weights(settings: TrainSettings, init: str) -> DetectorConfig | None:
    """What a file of weights was made for: as its configuration says, or as it is published."""
    asked = settings.model_fields_set
    classes = settings.classes if "classes" in asked else None
    if settings.init_config is not None:
        config = config_of_file(settings.init_config)
    elif settings.size == "published":
        state = read_checkpoint(init)
        with _named(init):
            config = config_of_state(state, classes)
    else:
        return None
    if "network" in asked and settings.network != config.network:
        raise FewerError(f"{init} holds {config.network}, not {settings.network}; leave --network out")
    if classes is not None and classes != config.classes:
        raise FewerError(f"{settings.init_config} names {', '.join(config.classes)}; leave --classes out")
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
        state = read_checkpoint(init)
        with _named(init):
            load_published(model, state)


@contextmanager
def _named(init: str) -> Iterator[None]:
    """Name the file that an error is about; what reads its weights has not seen it."""
    try:
        yield
    except FewerError as error:
        raise FewerError(f"--init {init}: {error}") from None
