"""Repair a compressed model again, on many more images than it was made with: the first part of a recovery.

The least-squares repair of a compression sees few images, as sensing and every baseline have to pay for each of them,
and coarse cuts learn few images by heart. Here one model is repaired, its masks are fixed, and each layer is fitted
again in order, on inputs that the layers before it now give, to what the dense layer gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from fewer.compensate.moments import rows_wanted
from fewer.compensate.sequential import Layered, UnitFacts, compress_in_order
from fewer.core.memory import free_memory
from fewer.core.option import Option
from fewer.data.samples import Samples
from fewer.engine.apply import MEMORY_BYTES, images_in_memory
from fewer.engine.felt import places_on
from fewer.engine.prepare import Prepared
from fewer.engine.sense import repair_of
from fewer.engine.settings import Settings
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.kernels.frames import same_frames
from fewer.kernels.pixels import same_pixels
from fewer.models.layers import find_layers
from fewer.models.recipe import Recipe
from fewer.patterns import to_matrix
from fewer.tokens.blocks import unmerged

__all__ = ["affordable_views", "can_refit", "refit", "room_for_views"]

_ITERATIONS = 12  # conjugate-gradient steps per layer; they start from the repaired weights
_FEWEST = 1.5  # times the images that the model was repaired with: fewer would teach it what it knows
_PASSES = 5.0  # forward passes that an image costs: two models, and the sums of its inputs


def can_refit(prepared: Prepared, student: nn.Module, recipe: Recipe, settings: Settings) -> bool:
    """Whether each layer of the student has its twin's shape and place, so that least squares can fit one to the other.

    Removed channels change shapes. Merged tokens do not matter: while the layers are fitted, nothing is merged.
    """
    if settings.compensation != "obs":
        return False
    if any(unit.pattern == "columns" for unit in recipe.units):
        return False
    shapes = {name: value.shape for name, value in prepared.model.state_dict().items()}
    return all(shapes.get(name) == value.shape for name, value in student.state_dict().items())


def affordable_views(prepared: Prepared, seconds: float, per_image: float) -> int:
    """How many images a repair of so many seconds can learn from; 0 where they would be too few to help.

    Parameters
    ----------
    prepared
        The dense model and its images.
    seconds
        To spend.
    per_image
        Seconds of a forward pass of one image, measured here.
    """
    macs = sum(unit.macs for unit in prepared.matched.units)
    sums = 0.0
    for unit in prepared.matched.units:
        out, columns = unit.rows, unit.cols
        sums += 3 * rows_wanted(columns) * columns**2 + (2 * _ITERATIONS * out + columns) * columns**2
    fixed = sums / max(1.0, macs) * per_image  # at the speed of the forward pass
    count = min(int((seconds - fixed) / (_PASSES * per_image)), room_for_views(prepared))
    return count if count >= _FEWEST * len(prepared.calibration) else 0


def room_for_views(prepared: Prepared) -> int:
    """How many images the repair may hold at once: as many as fit into half of the free memory."""
    free = free_memory()
    return images_in_memory(prepared, MEMORY_BYTES if free is None else 0.5 * free)


def refit(
    prepared: Prepared,
    settings: Settings,
    student: nn.Module,
    masks: Mapping[str, Tensor],
    precisions: Mapping[str, str],
    images: Samples,
    done: Callable[[str], None] = lambda name: None,
) -> None:
    """Fit every layer of a compressed model again, in place; masks and precisions stay.

    Parameters
    ----------
    prepared, settings
        Of the run.
    student
        The compressed model.
    masks, precisions
        Of each unit.
    images
        To learn from, all at once in memory.
    done
        Called with the name of each finished unit.
    """
    dense = set_evaluating(copied_module(prepared.model))
    units, example = prepared.matched.units, prepared.example
    batches = images.batches_of_all(settings.batch)
    same_frames(same_pixels(dense, student), student)  # layers are fitted on the inputs that they get
    with unmerged(student):
        compress_in_order(
            Layered(dense, find_layers(dense, units, example, prepared.forward)),
            Layered(student, find_layers(student, units, example, prepared.forward)),
            # nothing is cut: the masks of before stay, and what they leave is rounded as before
            {unit.name: [Option(precision=precisions[unit.name])] for unit in units},
            batches,
            replace(repair_of(settings), iterations=_ITERATIONS),
            correction=settings.correction,
            facts=UnitFacts(
                alive={name: to_matrix(mask) for name, mask in masks.items()},
                places=places_on(prepared, settings, images, batches),
            ),
            forward=prepared.forward,
            done=done,
        )
