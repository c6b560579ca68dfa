"""Each thing that can be wrong is found and named; what is safe is mended in a copy; the original stays as it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.doctor import CHECKS, checkup
from fewer.tasks.segment.files import Picture, read_picture, write_picture
from fewer.tasks.segment.reading import read_case
from fewer.tasks.segment.repair import repair
from tests.tasks.segment.simulated import write_folder, write_raw


def _save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def _cut_off(root: Path) -> None:
    path = root / "images/case1.png"
    path.write_bytes(path.read_bytes()[:70])


def _orphan(root: Path) -> None:
    shutil.copy(root / "masks/case1.png", root / "masks/nobody.png")


def _shape(root: Path) -> None:
    _save(root / "masks/case1.png", np.zeros((7, 7), np.uint8))


def _channels(root: Path) -> None:
    _save(root / "images/case1.png", np.full((48, 40, 3), 7, np.uint8) + np.arange(40, dtype=np.uint8)[None, :, None])


def _nan(root: Path) -> None:
    (root / "images/case1.png").unlink()
    array = np.random.default_rng(0).random((48, 40)).astype(np.float32)
    array[3, 3] = np.nan
    write_picture(root / "images/case1.tif", array)


def _constant(root: Path) -> None:
    _save(root / "images/case1.png", np.full((48, 40), 9, np.uint8))


def _picture(root: Path) -> None:
    shutil.copy(root / "images/case2.png", root / "masks/case1.png")


def _unknown(root: Path) -> None:
    (root / "classes.json").write_text('{"lesion": 255}')
    mask = np.zeros((48, 40), np.uint8)
    mask[:5] = 7
    _save(root / "masks/case1.png", mask)


def _gaps(root: Path) -> None:
    mask = np.asarray(Image.open(root / "masks/case1.png")).copy()
    mask[:3, :3] = 4
    _save(root / "masks/case1.png", mask)


def _declared_but_absent(root: Path) -> None:
    (root / "classes.json").write_text('{"lesion": 255, "hair": 3}')


def _empty(root: Path) -> None:
    _save(root / "masks/case1.png", np.zeros((48, 40), np.uint8))


def _twin(root: Path) -> None:
    for name in ("images", "masks"):
        shutil.copy(root / name / "case1.png", root / name / "copy.png")


def _contradiction(root: Path) -> None:
    shutil.copy(root / "images/case1.png", root / "images/copy.png")
    shutil.copy(root / "masks/case2.png", root / "masks/copy.png")


def _leak(root: Path) -> None:
    _twin(root)
    names = [f"case{i}" for i in range(4)]
    (root / "splits_final.json").write_text(json.dumps([{"train": names, "val": ["copy"]}]))


def _parted_subject(root: Path) -> None:
    for path in [*root.rglob("case*.*")]:
        number = int(path.stem[4:])
        path.rename(path.with_name(f"sub{number // 2}_z{number}{path.suffix}"))
    split = {"train": ["sub0_z0", "sub0_z1", "sub1_z2"], "val": ["sub1_z3"]}
    (root / "splits_final.json").write_text(json.dumps([split]))


def _leak_to_the_pool(root: Path) -> None:
    shutil.copy(root / "images/case1.png", root / "images/pool.png")


def _split(root: Path) -> None:
    (root / "splits_final.json").write_text(json.dumps([{"train": ["case0", "case9"], "val": ["case1"]}]))


def _axes(root: Path) -> None:
    for name in ("images", "masks"):
        (root / name / "case1.png").unlink()
        array = np.random.default_rng(0).integers(0, 2, (3, 48, 40)).astype(np.uint8)
        write_picture(root / name / "case1.tif", array)


CASES: dict[str, tuple[Callable[[Path], None], ...]] = {
    "unreadable": (_cut_off,),
    "orphan-mask": (_orphan,),
    "shape": (_shape,),
    "channels": (_channels,),
    "axes": (_axes,),
    "nan": (_nan,),
    "constant": (_constant,),
    "mask-values": (_picture,),
    "unknown-label": (_unknown,),
    "label-gaps": (_gaps,),
    "absent-class": (_declared_but_absent,),
    "empty-mask": (_empty,),
    "duplicate": (_twin,),
    "contradiction": (_contradiction,),
    "leak": (_leak, _leak_to_the_pool),
    "subject": (_parted_subject,),
    "split": (_split,),
}
VOLUMES = {"place", "unused", "geometry", "count", "spacing"}  # tested on NIfTI below


def test_every_check_has_a_test() -> None:
    assert CASES.keys() | VOLUMES == CHECKS.keys()


def test_a_healthy_set_has_no_finding(tmp_path: Path) -> None:
    found = checkup(write_folder(tmp_path / "data", 4))
    assert found.findings == ()
    assert found.facts["annotated"] == 4
    assert found.facts["shape"]["most"] == [48, 40]


def _hashes(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("check", "spoil"), [(check, spoil) for check, all_ in CASES.items() for spoil in all_])
def test_it_is_found_named_and_mended_in_a_copy(tmp_path: Path, check: str, spoil: Callable[[Path], None]) -> None:
    root = write_folder(tmp_path / "data", 4)
    spoil(root)
    before = _hashes(root)
    found = checkup(root)
    mine = [finding for finding in found.findings if finding.check == check]
    assert mine, found.findings
    assert all(finding.level in ("error", "warning") and "\n" not in finding.text for finding in mine)
    done = repair(found, tmp_path / "Dataset009_Fixed")
    assert _hashes(root) == before
    again = checkup(done.folder)
    assert again.healthy, again.findings
    assert again.data.layout == "nnunet"
    assert json.loads((done.folder / "changes.json").read_text()) == done.to_dict()
    assert done.kept + len([line for line in done.left_out if ":" in line]) == len(found.looks)
    data = open_data(done.folder)
    for case in data.cases:
        read_case(data, case)  # all of it can be trained on


def test_gaps_are_closed_in_order(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 3)
    _gaps(root)
    done = repair(checkup(root), tmp_path / "fixed")
    old, new = (read_picture(path).array for path in (root / "masks/case1.png", tmp_path / "fixed/labelsTr/case1.png"))
    assert [int(new[old == value].max()) for value in (0, 4, 255)] == [0, 1, 2]
    assert "label 255 is now 2 in all masks" in done.changed


def test_geometry_count_and_spacing_of_volumes(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    root = write_raw(tmp_path / "Dataset004_Balls")
    facts = json.loads((root / "dataset.json").read_text()) | {"numTraining": 9}
    (root / "dataset.json").write_text(json.dumps(facts))
    mask = nibabel.load(root / "labelsTr/c1.nii.gz")
    values = np.asarray(mask.dataobj)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / "labelsTr/c1.nii.gz")
    image = read_picture(root / "imagesTr/c2_0000.nii.gz")
    for name in ("imagesTr/c2_0000.nii.gz", "labelsTr/c2.nii.gz"):
        array = read_picture(root / name).array[0]
        assert image.affine is not None
        write_picture(
            root / name, array, Picture(image.array, image.spacing, image.affine @ np.diag([5, 1, 1, 1]), True)
        )
    found = checkup(root)
    assert {finding.check for finding in found.findings} == {"geometry", "count", "spacing"}
    assert [finding.case for finding in found.errors] == ["c1"]
    done = repair(found, tmp_path / "fixed")
    assert len(done.left_out) == 1 and "c1" in done.left_out[0]
    assert checkup(done.folder).healthy


def test_a_mask_in_another_order_of_axes_is_turned_and_stays_where_it_is(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    root = write_raw(tmp_path / "Dataset004_Balls")
    file = nibabel.load(root / "labelsTr/c1.nii.gz")
    before = read_picture(root / "labelsTr/c1.nii.gz", mask=True)
    turned = nibabel.as_closest_canonical(file).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nibabel.save(turned, root / "labelsTr/c1.nii.gz")
    found = checkup(root)
    assert [(f.check, f.case, f.level) for f in found.findings if f.case] == [("geometry", "c1", "warning")]
    fixed = read_picture(repair(found, tmp_path / "fixed").folder / "labelsTr/c1.nii.gz", mask=True)
    assert np.array_equal(fixed.array, before.array) and np.allclose(fixed.affine, before.affine)  # type: ignore[arg-type]
    assert np.array_equal(read_case(open_data(root), open_data(root).case("c1")).mask, before.array[0])


def test_a_doubtful_place_and_files_that_are_not_read_are_told(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    root = write_raw(tmp_path / "Dataset004_Balls")
    file = nibabel.load(root / "imagesTr/c1_0000.nii.gz")
    moved = file.affine.copy()
    moved[0, 3] += 25
    file.set_sform(file.affine, code=2)
    file.set_qform(moved, code=1)
    nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj), None, file.header), root / "imagesTr/c1_0000.nii.gz")
    (root / "imagesTr/c9_0000.mha").write_bytes(b"x")
    (root / "labelsTr/more").mkdir()
    (root / "labelsTr/more/c8.nii.gz").write_bytes(b"x")
    found = {finding.check: finding for finding in checkup(root).findings}
    assert "25 mm" in found["place"].text
    assert found["unused"].text == "2 files are not read: c9_0000.mha, c8.nii.gz"


def test_nothing_half_written_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from fewer.tasks.segment import nnunet

    root = write_folder(tmp_path / "data", 3)
    found = checkup(root)
    real, calls = nnunet.write_picture, []

    def full(path, array, like=None):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "full")
        return real(path, array, like)

    monkeypatch.setattr(nnunet, "write_picture", full)
    with pytest.raises(FewerError, match="no space left"):
        repair(found, tmp_path / "fixed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_copy_never_replaces_anything(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 3)
    with pytest.raises(FewerError, match="exists already"):
        repair(checkup(root), root)
