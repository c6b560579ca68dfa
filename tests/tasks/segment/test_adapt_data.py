"""Both domains: which source cases train, judge or lose their masks; and domains that do not fit are told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.adapt_data import open_domains
from fewer.tasks.segment.adapt_settings import AdaptSettings


@pytest.fixture(name="target")
def _target(disc_data, tmp_path):
    shutil.copytree(disc_data / "images", tmp_path / "target")
    return tmp_path / "target"


def names(cases) -> list[str]:
    return sorted(case.name for case in cases)


def test_every_case_has_one_job(disc_data, target) -> None:
    found = open_domains(disc_data, target, AdaptSettings(source_labels=5))
    used = [*names(found.source), *names(found.held), *names(found.unlabelled)]
    assert (len(found.source), len(found.held)) == (4, 1) and sorted(used) == [f"case{i}" for i in range(8)]
    assert all(case.mask is None for case in found.unlabelled) and len(found.target) == 8


def test_a_queue_says_which_masks_are_used(disc_data, target, tmp_path) -> None:
    (tmp_path / "queue.csv").write_text("rank,name\n1,images/case6.png\n2,images/case2.png\n3,images/case1.png\n")
    settings = AdaptSettings(source_labels=2, source_list=str(tmp_path / "queue.csv"))
    found = open_domains(disc_data, target, settings)
    assert {*names([*found.source, *found.held])} == {"case2", "case6"}
    with pytest.raises(FewerError, match="names 3 cases"):
        open_domains(disc_data, target, AdaptSettings(source_labels=4, source_list=str(tmp_path / "queue.csv")))


def test_domains_that_do_not_fit_are_told(disc_data, target, tmp_path) -> None:
    with pytest.raises(FewerError, match="does not exist"):
        open_domains(disc_data, tmp_path / "nowhere", AdaptSettings())
    with pytest.raises(FewerError, match="8 masks"):
        open_domains(disc_data, target, AdaptSettings(source_labels=9))
    colour = tmp_path / "colour"
    colour.mkdir()
    for i in range(3):
        Image.fromarray(np.full((32, 36, 3), 40 * i, np.uint8)).save(colour / f"{i}.png")
    with pytest.raises(FewerError, match="1 channels, target images 3"):
        open_domains(disc_data, colour, AdaptSettings())
