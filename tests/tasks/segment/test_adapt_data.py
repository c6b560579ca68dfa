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
    Image.fromarray(np.zeros((32, 36), np.uint8)).save(colour / "0.png")
    with pytest.raises(FewerError, match=r"1.png has 3 channels and 0.png 1; save all scans"):
        open_domains(disc_data, colour, AdaptSettings())


def test_no_case_judges_that_alone_has_a_class(disc_data, target) -> None:
    for index in range(8):  # whichever case the seed would hold out
        data = target.parent / f"data{index}"
        shutil.copytree(disc_data, data)
        (data / "classes.json").unlink(missing_ok=True)
        path = sorted((data / "masks").iterdir())[index]
        mask = np.array(Image.open(path))
        mask[:3, :3] = 2
        Image.fromarray(mask).save(path)
        found = open_domains(data, target, AdaptSettings())
        assert path.stem in names(found.source) and len(found.held) == 1


def test_a_spacing_that_is_wrong_by_far_is_told_before_memory_is_taken(disc_data, target) -> None:
    source = target.parent / "data"
    shutil.copytree(disc_data, source)  # the other tests' has no spacing
    for folder in (source / "images", target):
        for number, path in enumerate(sorted(folder.glob("*.png"))):
            step = 1000.0 if folder == target and number == 2 else 1.0
            path.with_suffix(".json").write_text(f'{{"spacing": [{step}, {step}]}}')
    with pytest.raises(FewerError, match=r"case2.png has a spacing of 1000 mm"):
        open_domains(source, target, AdaptSettings())


def test_a_target_of_nnunet_needs_no_labels(disc_data, target) -> None:
    root = target.parent / "nnunet"
    (root / "imagesTs").mkdir(parents=True)
    (root / "dataset.json").write_text('{"file_ending": ".png"}')
    with pytest.raises(FewerError, match=r"holds no image .png in imagesTr/ or imagesTs/"):
        open_domains(disc_data, root, AdaptSettings())
    for path in target.iterdir():
        shutil.copy(path, root / "imagesTs" / f"{path.stem}_0000.png")
    assert names(open_domains(disc_data, root, AdaptSettings()).target) == [f"case{i}" for i in range(8)]
    (root / "dataset.json").write_text("[]")
    with pytest.raises(FewerError, match="file_ending"):
        open_domains(disc_data, root, AdaptSettings())


def test_one_folder_for_both_is_told(disc_data) -> None:
    assert any("one folder" in note for note in open_domains(disc_data, disc_data, AdaptSettings()).notes)


def test_a_scan_of_another_number_of_axes_is_named(disc_data, target) -> None:
    pages = [Image.fromarray(np.full((32, 36), 9, np.uint8)) for _ in range(3)]
    pages[0].save(target / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(FewerError, match=r"stack.tif is 3-dimensional and case0.png 2-dimensional"):
        open_domains(disc_data, target, AdaptSettings())


def test_a_target_whose_images_lie_deeper_is_told_where(disc_data, target) -> None:
    deep = target.parent / "deep"
    (deep / "sub-01" / "anat").mkdir(parents=True)
    shutil.copy(next(target.iterdir()), deep / "sub-01" / "anat" / "t2.png")
    with pytest.raises(FewerError, match=r"some lie deeper, such as sub-01.anat.t2.png: put all into one folder"):
        open_domains(disc_data, deep, AdaptSettings())


@pytest.mark.parametrize("what", ["/dev/zero", "nowhere.csv", "."])
def test_a_list_of_cases_that_is_no_file_is_told(disc_data, target, what):
    """A device gives bytes without end; the fuzzer took 24 GB with one."""
    with pytest.raises(FewerError):
        open_domains(disc_data, target, AdaptSettings(source_labels=2, source_list=what))
