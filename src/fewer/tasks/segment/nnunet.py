"""Write a data set as a raw folder of nnU-Net version 2, which every verb here reads too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.tasks.segment.dataset import Split
from fewer.tasks.segment.files import LOSSLESS, Picture, write_picture

__all__ = ["write_nnunet"]


def write_nnunet(
    folder: str | Path,
    cases: Iterable[tuple[str, Picture, np.ndarray | None]],
    *,
    classes: Mapping[str, int],
    channels: Sequence[str],
    suffix: str,
    splits: Sequence[Split] = (),
) -> Path:
    """Write a raw folder of nnU-Net version 2.

    Parameters
    ----------
    folder
        New or empty; nnU-Net wants a name like ``Dataset042_Lesions``.
    cases
        Name, image ``(channels, *space)``, and the mask ``(*space)`` of class indices; None puts it into ``imagesTs``.
    classes
        Class name -> index, from 0 without gaps.
    channels
        Name of each channel; ``"CT"`` makes nnU-Net keep Hounsfield units.
    suffix
        Of all files: lossless.
    splits
        Written as ``splits_final.json``, which nnU-Net looks for in its preprocessed folder.

    Returns
    -------
    Path
        Of ``dataset.json``, which is written last.

    Raises
    ------
    FewerError
        When the folder is not empty, the ending loses detail, or classes leave gaps.

    Examples
    --------
    >>> import tempfile
    >>> picture = Picture(np.zeros((1, 8, 8), np.uint8), (1.0, 1.0))
    >>> path = write_nnunet(
    ...     Path(tempfile.mkdtemp()),
    ...     [("a", picture, np.zeros((8, 8), np.uint8))],
    ...     classes={"background": 0, "lesion": 1},
    ...     channels=["grey"],
    ...     suffix=".png",
    ... )
    >>> sorted(p.name for p in path.parent.rglob("*.png"))
    ['a.png', 'a_0000.png']
    """
    root = Path(folder)
    if suffix not in LOSSLESS:
        raise FewerError(f"nnU-Net needs a lossless ending such as .png or .nii.gz; got {suffix!r}")
    if sorted(classes.values()) != list(range(len(classes))):
        raise FewerError(f"classes must be numbered from 0 without gaps; got {dict(classes)}")
    if root.is_dir() and any(entry.name[0] != "." for entry in root.iterdir()):
        raise FewerError(f"{root} is not empty; choose another folder")
    count = 0
    for name, picture, mask in cases:
        images = root / ("imagesTs" if mask is None else "imagesTr")
        # three bytes per pixel are one file for nnU-Net too; anything else is one file per channel
        if suffix not in (".nii.gz", ".nii") and picture.array.shape[0] == 3 and picture.array.dtype == np.uint8:
            write_picture(images / f"{name}_0000{suffix}", picture.array, picture)
        else:
            for index, plane in enumerate(picture.array):
                write_picture(images / f"{name}_{index:04d}{suffix}", plane, picture)
        if picture.spaced and suffix in (".tif", ".tiff"):  # nnU-Net leaves the channel out of this name
            atomic_write_text(images / f"{name}.json", json.dumps({"spacing": list(picture.spacing)}))
        if mask is not None:
            count += 1
            write_picture(root / "labelsTr" / f"{name}{suffix}", mask.astype(np.uint8), picture)
    if splits:
        text = json.dumps([{"train": list(split.train), "val": list(split.val)} for split in splits], indent=1)
        atomic_write_text(root / "splits_final.json", text)
    facts = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": dict(classes),
        "numTraining": count,
        "file_ending": suffix,
    }
    return atomic_write_text(root / "dataset.json", json.dumps(facts, indent=1) + "\n")
