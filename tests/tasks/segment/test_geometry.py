"""Where volumes lie: what headers say is checked, voxels are turned exactly, and nothing moves in mm."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Case
from fewer.tasks.segment.files import Picture, read_picture
from fewer.tasks.segment.geometry import GeometryError, onto, resample_onto
from fewer.tasks.segment.reading import read_image

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def _places(picture: Picture) -> set:
    """Brute force: the places in mm of all voxels that are not 0."""
    array = picture.array[0].reshape((*picture.space, 1, 1, 1)[:3])
    found = set()
    for voxel in np.argwhere(array > 0):
        place = picture.affine @ np.array([*voxel, 1.0])
        found.add((*np.round(place[:3], 3), int(array[tuple(voxel)])))
    return found


def _stored(array: np.ndarray, affine: np.ndarray, axes: tuple, signs: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places, stored with their axes exchanged and reversed."""
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for new, old in enumerate(axes):
        move[old, new] = signs[new]
        move[old, 3] = 0 if signs[new] > 0 else array.shape[old] - 1
    turned = array.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    return turned, affine @ move


def _picture(array: np.ndarray, affine: np.ndarray) -> Picture:
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return Picture(array[None], spacing, affine, True)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.tuples(*[st.floats(0.3, 4)] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
    st.integers(0, 2**31),
)
def test_any_order_of_axes_is_turned_exactly(how, shape, spacing, origin, seed) -> None:
    array = np.random.default_rng(seed).integers(0, 4, shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    image = _picture(array, affine)
    mask = _picture(*_stored(array, affine, *how))
    turned = onto(mask, image, "the mask", "its image")
    np.testing.assert_array_equal(turned.array[0], array)
    assert turned.space == image.space


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-2, 2)] * 3), st.integers(0, 2**31))
def test_a_repair_never_moves_a_mask_in_mm(shift, seed) -> None:
    array = np.zeros((7, 8, 9), np.uint8)
    array[2:5, 3:5, 3:6] = np.random.default_rng(seed).integers(1, 4, (3, 2, 3))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    moved = affine.copy()
    moved[:3, 3] = np.array(shift) * [1, 1, 2]
    image, mask = _picture(np.zeros_like(array), affine), _picture(array, moved)
    fitted, done = resample_onto(mask, image, "the mask")
    assert _places(fitted) == _places(mask)
    assert bool(done) == any(shift)
    if any(shift):
        with pytest.raises(GeometryError, match="lies elsewhere"):
            onto(mask, image, "the mask", "its image")


def test_a_mask_outside_of_its_image_is_refused() -> None:
    array = np.ones((4, 4, 4), np.uint8)
    moved = np.eye(4)
    moved[0, 3] = 3
    with pytest.raises(GeometryError, match="outside of its image"):
        resample_onto(_picture(array, moved), _picture(array, np.eye(4)), "the mask")


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.diag([1, 1, 2, 1]) + np.array([[0, 0.6, 0, 0]] + [[0] * 4] * 3), "right angles"),
        (np.diag([1, 0, 2, 1]), "without length"),
        (np.diag([1, 1, np.nan, 1]), "not finite"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "right angles"),
        (np.diag([3, 3, 2, 1]), "pixdim says"),
        (np.diag([1e30, 1, 2, 1]), "no scanner"),
        (np.diag([1, 1e-30, 2, 1]), "no scanner"),
    ],
)
def test_a_header_that_is_no_grid_is_refused(tmp_path, matrix, words) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([1.0, 1.0, 2.0, 1.0])), path)
    raw = bytearray(path.read_bytes())
    raw[280:328] = np.asarray(matrix, "<f4")[:3].tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(bytes(raw))
    with pytest.raises(GeometryError, match=words):
        read_picture(path)


def test_two_forms_that_name_other_sides_are_refused_and_a_shift_is_told(tmp_path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    file = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine)
    file.set_qform(np.diag([-1.0, 1.0, 2.0, 1.0]), code=1)
    nib.save(file, tmp_path / "flip.nii")
    with pytest.raises(GeometryError, match=r"RAS.*LAS"):
        read_picture(tmp_path / "flip.nii")
    shifted = affine.copy()
    shifted[0, 3] = 30
    file.set_qform(shifted, code=1)
    nib.save(file, tmp_path / "shift.nii")
    assert "30 mm" in read_picture(tmp_path / "shift.nii").doubt


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3)])
def test_every_unit_of_measure_becomes_mm(tmp_path, unit, factor) -> None:
    file = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
    file.header.set_xyzt_units(xyz=unit)
    nib.save(file, tmp_path / "a.nii")
    picture = read_picture(tmp_path / "a.nii")
    np.testing.assert_allclose(picture.spacing, np.array([1, 1, 2]) * factor)
    np.testing.assert_allclose(np.diag(picture.affine)[:3], np.array([1, 1, 2]) * factor)


def test_a_header_without_a_place_has_none(tmp_path) -> None:
    file = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    file.header.set_zooms((1, 1, 3))
    nib.save(file, tmp_path / "a.nii")
    picture = read_picture(tmp_path / "a.nii")
    assert picture.affine is None and picture.spacing == (1.0, 1.0, 3.0)


def test_channels_are_turned_to_the_first_or_refused(tmp_path) -> None:
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "c_0000.nii.gz")
    nib.save(nib.Nifti1Image(*_stored(array, affine, (2, 0, 1), (1, -1, -1))), tmp_path / "c_0001.nii.gz")
    case = Case("c", (tmp_path / "c_0000.nii.gz", tmp_path / "c_0001.nii.gz"))
    image, _ = read_image(case)
    np.testing.assert_array_equal(image[0], image[1])
    affine[0, 3] = 10
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "c_0001.nii.gz")
    with pytest.raises(FewerError, match="elsewhere"):
        read_image(case)


def test_colours_of_a_volume_are_three_channels(tmp_path) -> None:
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 7
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii.gz")
    picture = read_picture(tmp_path / "a.nii.gz")
    assert picture.array.shape == (3, 4, 5, 6) and picture.array.max((1, 2, 3)).tolist() == [0, 7, 0]


@pytest.mark.parametrize(("shape", "channels"), [((4, 5, 6, 3), 3), ((4, 5, 6, 1, 3), 3), ((4, 5, 6, 2, 1), 2)])
def test_further_axes_are_channels(tmp_path, shape, channels) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_picture(tmp_path / "a.nii.gz").array.shape == (channels, 4, 5, 6)


@pytest.mark.parametrize("array", [np.zeros((4, 5, 6, 2, 3), np.float32), np.zeros((4, 5, 6), np.complex64)])
def test_what_is_no_volume_of_numbers_is_refused_in_a_sentence(tmp_path, array) -> None:
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(FewerError, match=r"axes|real numbers"):
        read_picture(tmp_path / "a.nii.gz")
