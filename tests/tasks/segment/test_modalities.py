"""Simulated modalities: the physics in closed form, what masks say, and that a curve of the source is not enough."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.modalities import (
    CLASSES,
    SEQUENCES,
    TISSUES,
    phantom,
    render,
    signal,
    tissues_of,
    write_domain,
)
from fewer.tasks.segment.reading import read_case


def test_the_signal_is_that_of_a_spin_echo() -> None:
    for sequence in SEQUENCES.values():
        got = signal(sequence, np.array([[0.8, 1.2, 0.09]]))[0]
        want = 0.8 * (1 - math.exp(-sequence.repetition / 1.2)) * math.exp(-sequence.echo / 0.09)
        assert math.isclose(got, want)


def test_target_contrast_is_no_function_of_source_contrast() -> None:
    from fewer.tasks.segment.modalities import _PHYSICS

    names = [TISSUES.index(name) for name in ("grey", "white", "thalamus", "pallidum", "putamen")]
    one, two = (signal(SEQUENCES[kind], _PHYSICS)[names] for kind in ("t1", "t2"))
    order = np.argsort(one)
    steps = np.sign(np.diff(two[order]))
    assert set(steps) == {-1.0, 1.0}  # neither rising nor falling with the source


@pytest.mark.parametrize("shape", [(48, 48), (32, 32, 12)])
def test_masks_are_exact_and_lesions_are_as_frequent_as_stated(shape: tuple[int, ...]) -> None:
    pytest.importorskip("scipy")
    tissue, mask = phantom(np.random.default_rng(0), shape)
    shares = {}
    for kind, sequence in SEQUENCES.items():
        found = [render(tissue, mask, sequence, np.random.default_rng([seed])) for seed in range(40)]
        image, truth = found[0]
        assert image.shape == truth.shape == shape and image.dtype == np.float32 and (image[tissue == 0] == 0).all()
        assert all((m == CLASSES["cochlea"]).any() for _, m in found)
        shares[kind] = np.mean([(m == CLASSES["lesion"]).any() for _, m in found])
    assert shares["t1"] > 0.6 > shares["t2"] > 0.15


def test_every_class_has_a_tissue() -> None:
    tissue, mask = tissues_of(np.array([4, 10, 11, 12, 13, 17, 3, 507, 0]))
    assert mask.tolist() == [1, 2, 2, 2, 2, 0, 0, 0, 0] and tissue[-2] == TISSUES.index("scalp")


def test_a_domain_is_a_data_set(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    maps = {"a": phantom(np.random.default_rng(0)), "b": phantom(np.random.default_rng(1))}
    data = open_data(write_domain(tmp_path, maps, SEQUENCES["t1"], 3))
    sample = read_case(data, data.cases[0])
    assert data.classes == CLASSES and sample.spacing == (2.0, 2.0) and sample.mask is not None
