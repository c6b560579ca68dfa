"""Subjects from names: slices, frames, tiles and sides of one scan are of one; photos with numbers are not."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.core.subjects import draw_groups, subjects_of


@pytest.mark.parametrize(
    ("names", "subjects"),
    [
        (["sub01_z012", "sub01_z013", "sub02_z1"], ["sub01", "sub01", "sub02"]),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_T1w"], ["sub-01", "sub-01", "sub-02"]),
        (["patient001_frame01", "patient001_frame12", "patient002_frame01"], ["patient001"] * 2 + ["patient002"]),
        (["volume-10_slice_5", "volume-10_slice_6", "volume-1_slice_7"], ["volume-10", "volume-10", "volume-1"]),
        (["sub01slice3", "sub01slice4", "sub02slice4"], ["sub01", "sub01", "sub02"]),
        (["s01z0", "s01z1", "s02z0"], ["s01", "s01", "s02"]),
        (["n03_5", "n03_6", "n04_1", "n05_1"], ["n03", "n03", "n04", "n05"]),
        (["TCGA_CS_4941_12", "TCGA_CS_4941_13", "TCGA_CS_4942_1", "TCGA_DU_5851_3"], ["TCGA_CS_4941"] * 2 + [""] * 2),
        (["slide3_x120_y400", "slide3_x0_y400", "slide4_x1_y2"], ["slide3", "slide3", "slide4"]),
        (["10_left", "10_right", "13_left"], ["10", "10", "13"]),
        (["患者01_001", "患者01_002", "患者02_001", "患者03_001"], ["患者01", "患者01", "患者02", "患者03"]),
    ],
)
def test_images_of_one_subject_are_together(names: list[str], subjects: list[str]) -> None:
    found = subjects_of(names)
    assert all(want in ("", found.of[name]) for name, want in zip(names, subjects, strict=True))
    told = f"{len(names)} images are of {len(set(found.of.values()))} subjects, such as '{subjects[0]}' of {names[0]}"
    assert told in found.sentence()


@pytest.mark.parametrize(
    "names",
    [
        ["img_001", "img_002", "img_003"],
        ["case0", "case1", "case10"],
        ["ISIC_0012345", "ISIC_0012346"],
        ["cat_1", "cat_2", "dog_1", "bird_1"],
        ["BraTS20_Training_001", "BraTS20_Training_002"],
        ["00001", "00002"],
        ["z1", "z2"],
        ["left", "right"],
        [],
    ],
)
def test_numbers_of_photos_are_no_slices(names: list[str]) -> None:
    found = subjects_of(names)
    assert not found.grouped and found.sentence() == "" and found.groups(names) == [[name] for name in names]


def test_volumes_with_numbers_are_subjects_but_for_their_sessions() -> None:
    names = ["site1_01", "site1_02", "site2_01", "site3_01"]
    assert subjects_of(names).grouped and not subjects_of(names, slices=False).grouped
    assert subjects_of(["sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1"], slices=False).grouped


def test_a_pattern_or_none_is_the_users_own_word() -> None:
    names = ["a-1-x", "a-2-x", "b-1-x"]
    assert list(subjects_of(names, "^([a-z])-").of.values()) == ["a", "a", "b"]
    assert not subjects_of(["sub1_z1", "sub1_z2", "sub2_z1"], "none").grouped
    for rule, told in (("(", "no regular expression"), ("q", "fits no name, such as 'a-1-x'"), ("x", "takes all 3")):
        with pytest.raises(FewerError, match=told):
            subjects_of(names, rule)


@pytest.mark.parametrize("name", ["submarine_{}_a", "patch_x{}_y1", "path_to_{}_01", "casein_A{}_3", "subway_{}_b"])
def test_words_that_only_begin_like_a_subject_are_none(name: str) -> None:
    assert not subjects_of([name.format(2020 + i // 2) + str(i) for i in range(8)], bare=False).grouped


@pytest.mark.parametrize("name", ["sub-CC{}_ses-{}", "patient_A{}_z{}", "Subject{}_t{}", "case{} left{}"])
def test_words_for_a_subject_count_with_their_number(name: str) -> None:
    found = subjects_of([name.format(10 + i // 2, i % 2) for i in range(8)], bare=False)
    assert len(set(found.of.values())) == 4


def test_whole_groups_are_drawn_about_as_many_as_wanted() -> None:
    """Against every set of groups: none is nearer by more than the passing over of large ones costs."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(1, 12, rng.integers(2, 8)).tolist()
        wanted = int(rng.integers(1, sum(sizes)))
        order = rng.permutation(len(sizes)).tolist()
        drawn = draw_groups(sizes, order, wanted)
        got = sum(sizes[i] for i in drawn)
        assert 0 < len(drawn) < len(sizes) and len(set(drawn)) == len(drawn)
        if len(drawn) > 1 or got != min(sizes):  # the smallest one is taken where all are too large
            assert got <= 2 * wanted
        assert draw_groups([1] * len(sizes), order, min(wanted, len(sizes) - 1)) == order[: min(wanted, len(sizes) - 1)]
    refused: list[int] = []
    assert draw_groups([1, 1, 1], [0, 1, 2], 2, lambda i: i != 0 or refused.append(i) or False) == [1, 2]
    assert refused == [0]
