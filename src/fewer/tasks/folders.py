"""What tasks do alike at their edges: folders for results, and the device that a network runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error, refuse_links
from fewer.core.staging import NEXT, Staging

if TYPE_CHECKING:
    import torch

__all__ = ["check_out", "device_of", "make_folder", "pictures_and_masks", "pictures_of", "results_aside"]

_IMAGES = ("images", "imagesTr", "image", "img", "imgs")
_MASKS = ("masks", "labels", "labelsTr", "mask", "label", "annotations", "segmentations", "gt")


def pictures_and_masks(root: str | Path) -> tuple[Path, Path] | None:
    """The folders with the images and with the masks of a segmentation set, by name; None where one is missing.

    Classification asks too: such folders are not two classes.

    Examples
    --------
    >>> pictures_and_masks("no-such-folder") is None
    True
    """
    found = [next((p for name in names if (p := Path(root) / name).is_dir()), None) for names in (_IMAGES, _MASKS)]
    return (found[0], found[1]) if found[0] and found[1] else None


def pictures_of(root: str | Path) -> Path | None:
    """The folder with the images of a segmentation set, whether or not there is one with masks.

    Examples
    --------
    >>> pictures_of("no-such-folder") is None
    True
    """
    return next((p for name in _IMAGES if (p := Path(root) / name).is_dir()), None)


def check_out(out: str | Path | None, names: Sequence[str], overwrite: bool) -> None:
    """Tell before any work that results would stand in the way of others.

    Raises
    ------
    FewerError
        When ``out`` is a file, or holds a file of these names and may not be overwritten.

    Examples
    --------
    >>> check_out(None, ["evaluation.json"], overwrite=False)
    """
    if out is None:
        return
    place = Path(out)
    if place.exists() and not place.is_dir():
        raise FewerError(f"--out {out} is a file; give a folder")
    for name in names:
        if (place / name).exists() and not overwrite:
            raise FewerError(f"{place / name} exists already; give another --out, or --overwrite")


def make_folder(folder: str | Path) -> Path:
    """Make a folder and its parents where they are not there.

    Raises
    ------
    FewerError
        When it cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> make_folder(Path(tempfile.mkdtemp()) / "a" / "b").is_dir()
    True
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, Path(folder), "make the folder") from None
    return Path(folder)


def results_aside(folder: Path, inner: Sequence[str], anew: bool, resume: bool) -> Staging | None:
    """Where results are made that replace others, which stay until all of the new ones are there; else None.

    An exchange that was interrupted is carried on first.

    Parameters
    ----------
    folder
        Of the results.
    inner
        Folders in it that are written to as well; none of them may be a link.
    anew
        Whether results that are there are to be replaced.
    resume
        Whether work that was interrupted goes on; with ``anew``, work starts anew where none was.

    Raises
    ------
    FewerError
        When a link would lead what is written to another place, or a folder ``.next`` there is someone else's.

    Examples
    --------
    >>> import tempfile
    >>> results_aside(Path(tempfile.mkdtemp()), [], anew=False, resume=False) is None
    True
    """
    refuse_links(folder, {*inner, NEXT})
    staging = Staging(folder)
    staging.refuse_foreign()
    if staging.complete():
        staging.carry_on()
    if not (resume and staging.exists()):
        staging.discard()
        if not anew:
            return None
    staging.begin()
    return staging


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where it is there.

    Raises
    ------
    FewerError
        When there is no such device here.

    Examples
    --------
    >>> device_of("cpu")
    device(type='cpu')
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FewerError("there is no CUDA device here; give --device cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # whether it is there
    except Exception as error:  # torch has an error of its own for every kind of device
        reason = " ".join(str(error).split())[:120]
        raise FewerError(f"the device {name!r} cannot be used here ({reason}); give --device cpu") from None
    if device.type == "meta":
        raise FewerError("the device 'meta' holds no numbers, so nothing can be computed on it; give --device cpu")
    return device
