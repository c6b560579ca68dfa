"""Simulated pictures with exact masks: discs of another brightness on a texture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def disc(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """True inside a disc or ball."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2


def picture(seed: int, shape: tuple[int, ...] = (48, 40)) -> tuple[np.ndarray, np.ndarray]:
    """A simulated grey picture (uint8) and its mask with classes 0 and 1."""
    rng = np.random.default_rng(seed)
    centre = tuple(float(rng.uniform(0.35, 0.65) * n) for n in shape)
    mask = disc(shape, centre, float(rng.uniform(0.15, 0.28) * min(shape)))
    grey = rng.normal(90, 12, shape) + 70 * mask
    return np.clip(grey, 0, 255).astype(np.uint8), mask.astype(np.uint8)


def write_folder(root: Path, count: int = 8, shape: tuple[int, int] = (48, 40)) -> Path:
    """A simulated data set: images/*.png and masks/*.png with 0 and 255."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        grey, mask = picture(index, shape)
        Image.fromarray(grey).save(root / "images" / f"case{index}.png")
        Image.fromarray(255 * mask).save(root / "masks" / f"case{index}.png")
    return root


def write_raw(root: Path, count: int = 4, shape: tuple[int, int, int] = (20, 18, 16)) -> Path:
    """A simulated nnU-Net raw folder of volumes with 0.8 x 0.8 x 2 mm voxels and an oblique affine."""
    import nibabel

    affine = np.array([[-0.8, 0, 0, 5], [0, 0, 2.0, -7], [0, 0.8, 0, 3], [0, 0, 0, 1.0]])
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        grey, mask = picture(index, shape)
        nibabel.save(nibabel.Nifti1Image(grey.astype(np.int16), affine), root / f"imagesTr/c{index}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), root / f"labelsTr/c{index}.nii.gz")
    facts = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "ball": 1}}
    (root / "dataset.json").write_text(json.dumps(facts | {"numTraining": count, "file_ending": ".nii.gz"}))
    return root
