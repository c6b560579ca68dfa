"""Which calibration images decide between models, and fit none of them."""

from __future__ import annotations

from dataclasses import replace

from fewer.data.samples import Samples
from fewer.engine.prepare import Prepared

__all__ = ["deciding_images", "without_deciding"]

_PART = 6  # one image in so many decides
_FEWEST = 4


def _count(prepared: Prepared) -> int:
    """How many samples, from the end of the calibration set, decide; 0 where there are too few to spare any.

    The last samples come from other files than the first, on which distortion is measured, and samples of one file
    stand together: the cut goes between two files where files are known.
    """
    total, near, files = len(prepared.calibration), prepared.apart[1], prepared.calibration.files
    count = max(_FEWEST, total // _PART)
    if near == 0 or total - near < 3 * count // 2:
        return 0
    if files:
        while count < total - near and files[total - count - 1] == files[total - count]:
            count += 1
    return count if total - count > near else 0


def deciding_images(prepared: Prepared) -> Samples | None:
    """Samples that decide between models made from :func:`without_deciding`, or None where none can be spared."""
    count = _count(prepared)
    return prepared.calibration[-count:] if count else None


def without_deciding(prepared: Prepared) -> Prepared:
    """The same model with the samples that remain."""
    count = _count(prepared)
    if not count:
        return prepared
    shared = {name: value for name, value in prepared.shared.items() if name == "sensitivity"}
    return replace(prepared, inputs=replace(prepared.inputs, calibration=prepared.calibration[:-count]), shared=shared)
