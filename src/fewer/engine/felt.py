"""Where a model's output feels a change of its layers, sample by sample, for the repair of what stays."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fewer.data.samples import Samples
from fewer.distortion.places import felt_places, joined_places
from fewer.engine.prepare import Prepared
from fewer.engine.sense_task import probe_seeds
from fewer.engine.settings import Settings
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.layers import find_layers

__all__ = ["places_of", "places_on"]


def places_of(
    prepared: Prepared, settings: Settings, positions: Sequence[int], batches: Sequence[Samples]
) -> dict[str, list[Tensor]] | None:
    """At which places the original model's output feels a change of its layers, for batches of calibration samples.

    Parameters
    ----------
    prepared
        What is found is kept in ``shared``, since all plans for this model need it.
    settings
        Of the run.
    positions
        Of the samples in the calibration set, in the order of the batches.
    batches
        What they have been put together to.

    Returns
    -------
    dict of str to list of Tensor
        By unit name one tensor a batch, see :func:`fewer.distortion.places.felt_places`. None where the distance does
        not tell places apart, and where nothing is repaired by least squares.
    """
    if not _tells(prepared, settings):
        return None
    if "places" not in prepared.shared:
        prepared.shared["places"] = _found(prepared, settings, prepared.calibration)
    return _joined(prepared.shared["places"], positions, batches)


def places_on(
    prepared: Prepared, settings: Settings, samples: Samples, batches: Sequence[Samples]
) -> dict[str, list[Tensor]] | None:
    """As :func:`places_of`, for other samples than those of the calibration, in the order of their batches."""
    if not _tells(prepared, settings):
        return None
    return _joined(_found(prepared, settings, samples), range(len(samples)), batches)


def _joined(
    single: dict[str, list[Tensor]], positions: Sequence[int], batches: Sequence[Samples]
) -> dict[str, list[Tensor]]:
    sizes = [len(batch) for batch in batches]
    return {name: joined_places([each[i] for i in positions], sizes) for name, each in single.items()}


def _tells(prepared: Prepared, settings: Settings) -> bool:
    tells = getattr(prepared.distance, "tells_places", False) and prepared.conduct.differentiable
    return bool(tells) and settings.compensation == "obs"


def _found(prepared: Prepared, settings: Settings, samples: Samples) -> dict[str, list[Tensor]]:
    """The places of each sample alone: a random direction then stands for one of them."""
    twin = set_evaluating(copied_module(prepared.model))
    single = samples.split(1)
    layers = find_layers(twin, prepared.matched.units, single[0], prepared.forward)
    return felt_places(
        twin,
        list(layers.values()),
        single,
        prepared.forward,
        seeds=probe_seeds(settings.seed, 0, len(single)),
        reference=prepared.reference(single, twin),
    )
