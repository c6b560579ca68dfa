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
    few = open_domains(disc_data, target, AdaptSettings(source_labels=2))
    told = "those that train judge as well"
    assert few.held == few.source and any(told in note for note in few.notes)
    assert not any(told in note for note in found.notes)


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


def test_masks_of_the_target_need_not_be_fit_to_be_read(disc_data, target) -> None:
    labelled = target.parent / "labelled"
    (labelled / "masks").mkdir(parents=True)
    shutil.copytree(target, labelled / "images")
    for path in target.glob("*.png"):  # of a kind that loses detail, which a training refuses
        Image.open(path).save(labelled / "masks" / f"{path.stem}.jpg")
    found = open_domains(disc_data, labelled, AdaptSettings())
    assert len(found.target) == 8 and any("8 masks; they are ignored" in note for note in found.notes)
    raw = target.parent / "raw"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    (raw / "dataset.json").write_text('{"file_ending": ".png", "labels": {"whole": [1, 2], "core": 2}}')  # regions
    for path in target.glob("*.png"):
        shutil.copy(path, raw / "imagesTr" / f"{path.stem}_0000.png")
        shutil.copy(path, raw / "labelsTr" / path.name)
    found = open_domains(disc_data, raw, AdaptSettings())
    assert names(found.target) == [f"case{i}" for i in range(8)] and "8 masks" in found.notes[0]


def test_masks_among_the_images_of_the_target_are_no_scans(disc_data, target) -> None:
    for path in sorted(target.glob("*.png"))[:3]:
        shutil.copy(path, path.with_name(f"{path.stem}_mask.png"))
    shutil.copy(path, path.with_name(f"{path.stem}_mask_1.png"))  # a second lesion
    found = open_domains(disc_data, target, AdaptSettings())
    assert names(found.target) == [f"case{i}" for i in range(8)] and "4 masks" in found.notes[0]


def test_channel_files_of_a_plain_target_are_one_scan(disc_data, target) -> None:
    source, plain = target.parent / "source", target.parent / "plain"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
    plain.mkdir()
    (source / "dataset.json").write_text(
        '{"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "disc": 255}, "file_ending": ".png"}'
    )
    for path in target.glob("*.png"):
        shutil.copy(disc_data / "masks" / path.name, source / "labelsTr" / path.name)
        for channel in ("0000", "0001"):
            shutil.copy(path, source / "imagesTr" / f"{path.stem}_{channel}.png")
            shutil.copy(path, plain / f"{path.stem}_{channel}.png")
    found = open_domains(source, plain, AdaptSettings())
    assert names(found.target) == [f"case{i}" for i in range(8)] and found.preparation.channels == 2
    assert all(len(case.images) == 2 for case in found.target)


@pytest.mark.parametrize("name", ["img_{:04d}", "sub-{}.ses-1", "{}"])
def test_a_list_may_name_cases_as_people_call_them(disc_data, target, tmp_path, name) -> None:
    data = target.parent / "named"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
        for index, path in enumerate(sorted((disc_data / folder).iterdir())):
            shutil.copy(path, data / folder / f"{name.format(index)}.png")
    chosen = [name.format(index) for index in (5, 3)]
    for rows in (chosen, [f"images/{one}.png" for one in chosen]):
        (tmp_path / "list.txt").write_text("\n".join(rows))
        # the numbers of a table are no names
        (tmp_path / "list.csv").write_text(
            "round,rank,name\n" + "".join(f"1,{i},{one}\n" for i, one in enumerate(rows))
        )
        for file in ("list.txt", "list.csv"):
            settings = AdaptSettings(source_labels=2, source_list=str(tmp_path / file))
            assert names(open_domains(data, target, settings).source) == sorted(chosen)


def _nifti(folder, code: str, index: int, mask: bool = True) -> None:
    import nibabel

    from tests.tasks.segment.simulated import picture
    from tests.tasks.segment.test_turning import lying

    grey, truth = picture(index, (16, 24, 16))
    for part, values in (("images", grey), ("masks", truth))[: 1 + mask]:
        (folder / part).mkdir(parents=True, exist_ok=True)
        found = lying(code, values[None])
        nibabel.save(nibabel.Nifti1Image(found.array[0], found.affine), folder / part / f"{code}{index}.nii.gz")


def test_scans_that_lie_otherwise_are_turned_and_that_is_said(tmp_path) -> None:
    pytest.importorskip("nibabel")
    for index in range(3):
        _nifti(tmp_path / "source", "RAS", index)
        _nifti(tmp_path / "target", "LIP" if index < 2 else "RAS", index, mask=False)
    found = open_domains(tmp_path / "source", tmp_path / "target", AdaptSettings(levels=3))
    assert found.preparation.axes == "RAS" and found.measured
    assert any("2 of 6 scans are turned" in note and "theirs: LIP" in note for note in found.notes)
    assert found.voxels == 6 * 16 * 24 * 16


def test_slices_of_one_subject_do_not_both_train_and_judge(disc_data, target) -> None:
    source = target.parent / "slices"
    for kind in ("images", "masks"):
        (source / kind).mkdir(parents=True)
        for number in range(8):
            shutil.copy(disc_data / kind / f"case{number}.png", source / kind / f"sub{number % 4:02}_z{number:03}.png")
    for seed in range(4):
        found = open_domains(source, target, AdaptSettings(seed=seed))
        assert len(found.held) == 2 and not {n[:5] for n in names(found.held)} & {n[:5] for n in names(found.source)}
        assert any("8 images are of 4 subjects, such as 'sub00' of sub00_z000" in note for note in found.notes)
        alone = open_domains(source, target, AdaptSettings(seed=seed, subject="none"))
        assert len(alone.held) == 1 and not any("subjects" in note for note in alone.notes)
    (queue := target.parent / "queue.txt").write_text(
        "".join(f"{n}\n" for n in ("sub00_z000", "sub00_z004", "sub01_z001", "sub01_z005"))
    )
    two = open_domains(source, target, AdaptSettings(source_labels=4, source_list=str(queue)))
    assert two.held == two.source  # one of two subjects would be half of the labels
