"""Samples: whatever they are made of, slices, batches and hashes mean the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from fewer.core.errors import FewerError
from fewer.data.calibration import as_calibration
from fewer.data.images import load_images, open_images
from fewer.data.lazy import LazySamples
from fewer.data.preprocess import Preprocess
from fewer.data.samples import ListSamples, TensorSamples, TreeSamples, join_samples, tensor_bytes
from fewer.engine.samples import find_inputs
from fewer.engine.settings import Settings
from fewer.models.artefact import state_hash
from fewer.models.spec import load_untouched


def numbers(samples) -> list[float]:
    """What identifies each sample, read batch by batch."""
    found = []
    for part in samples.split(3):
        batch = part.batch()
        batch = batch["x"] if isinstance(batch, dict) else batch
        found += batch.flatten(1)[:, 0].tolist()
    return found


def kinds(count: int):
    x = torch.arange(float(count)).view(-1, 1)
    yield TensorSamples(x)
    yield TreeSamples({"x": x, "scale": 2.0})
    yield ListSamples([torch.full((1 + i % 3, 2), float(i)) for i in range(count)])
    yield LazySamples([Path(f"{i}.txt") for i in range(count)], lambda p: np.array([float(p.stem)]), memory=32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.data())
def test_slices_and_positions_are_those_of_a_list(count, data):
    edge = st.one_of(st.none(), st.integers(-13, 13))
    cut = slice(data.draw(edge), data.draw(edge), data.draw(st.sampled_from([None, 1, 2, 5])))
    places = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6))
    for samples in kinds(count):
        known = [float(i) for i in range(count)]
        assert numbers(samples) == known and len(samples) == count
        assert len(samples[cut]) == len(known[cut])
        if known[cut]:
            assert numbers(samples[cut]) == known[cut]
        assert numbers(samples.take(places)) == [known[i] for i in places]
        mask = torch.tensor([i in places for i in range(count)])
        assert numbers(samples[mask]) == [float(i) for i in sorted(set(places))]


def test_a_hash_tells_values_and_order_apart():
    x = torch.arange(6.0).view(3, 2)
    assert TensorSamples(x).digest() == TensorSamples(x.clone()).digest()
    others = [x.flip(0), x.double(), x + 1]
    assert len({TensorSamples(o).digest() for o in (x, *others)}) == 4


def test_joining():
    assert len(join_samples([ListSamples([torch.zeros(2)]), ListSamples([torch.zeros(3)])])) == 2


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(FewerError, match="different shapes"):
        ListSamples([torch.zeros(2), torch.zeros(3)]).batch()
    with pytest.raises(FewerError, match="same first dimension"):
        TreeSamples({"x": torch.zeros(2, 1), "y": torch.zeros(3, 1)})


def photos(folder: Path, count: int) -> Path:
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("options", [{"count": 8}, {"count": 30, "crops": None}, {"crops": 2, "part": "calibration"}])
def test_images_on_disk_are_those_in_memory_and_few_of_them_are_held(tmp_path, options):
    preprocess = Preprocess(input_size=(3, 8, 8))
    whole = load_images(photos(tmp_path, 10), preprocess=preprocess, seed=3, **options)
    one = 4 * 3 * 8 * 8
    lazy = open_images(tmp_path, preprocess=preprocess, seed=3, memory=3 * one, **options)
    assert isinstance(lazy, LazySamples) and list(lazy.files) == whole.files and lazy.reads == 0
    seen = torch.cat([part.batch() for part in lazy.split(3)])
    assert torch.equal(seen, whole.tensor) and lazy.bytes_kept <= 3 * one
    assert torch.equal(lazy.to(torch.float64)[:2].batch(), whole.tensor[:2].double())


def test_a_file_that_breaks_later_gives_its_place_away_and_is_named(tmp_path):
    folder = photos(tmp_path, 6)
    lazy = open_images(folder, preprocess=Preprocess(input_size=(3, 8, 8)), memory=1)
    broken = lazy.files[2]
    broken.write_bytes(broken.read_bytes()[:60])  # its head is whole
    assert tuple(lazy[2:4].batch().shape) == (2, 3, 8, 8)
    assert [path for path, _ in lazy.skipped] == [broken]


def _broken():
    yield torch.zeros(3, 8, 8)
    raise RuntimeError("the disk\nis gone")


ODD_IMAGES = {
    "on meta": (lambda: torch.zeros(4, 3, 8, 8, device="meta"), "lie on 'meta'"),
    "sparse": (lambda: torch.ones(4, 3, 8, 8).to_sparse(), "nested or sparse"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(3, 8, 8)] * 4), "nested or sparse"),
    "sparse in a list": (lambda: [torch.ones(3, 8, 8).to_sparse()] * 4, "item 0 of the images are a nested or sparse"),
    "objects": (lambda: np.array([None, 1], dtype=object), "array of object, not of numbers"),
    "text": (lambda: np.array(["a", "b"]), "array of <U1, not of numbers"),
    "a source that breaks": (_broken, "item 1 of the images cannot be had: RuntimeError: the disk is gone"),
    "no name": (lambda: "", "the name of the image folder is empty"),
    "a long name": (lambda: "a" * 5000, "5000 characters, which no folder has"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_images_that_are_none_are_told_in_a_sentence(kind):
    make, says = ODD_IMAGES[kind]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    with pytest.raises(FewerError, match=says) as told:
        find_inputs(load_untouched(net), make(), Settings(calibration=2, heldout=2))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "change", [lambda a: a.astype(">f4"), lambda a: a[::-1], lambda a: np.asfortranarray(a), lambda a: a[:, :, ::-1]]
)
def test_arrays_in_any_order_of_bytes_and_rows_are_read(change):
    array = np.random.default_rng(0).random((6, 3, 8, 8), np.float32)
    wanted = change(array).astype("f4")
    assert np.array_equal(as_calibration(change(array)).tensor.numpy(), wanted)
    assert np.array_equal(as_calibration(list(change(array))).tensor.numpy(), wanted)


def test_a_tensor_of_one_value_without_a_stride_has_a_digest():
    """NumPy scalars come as such tensors, for example in models that a converter wrote."""
    odd = torch.tensor([2.0]).as_strided((1,), (0,))
    assert tensor_bytes(odd) == tensor_bytes(torch.tensor([2.0])) != tensor_bytes(torch.tensor([3.0]))
    assert state_hash(nn.Identity(), odd) == state_hash(nn.Identity(), torch.tensor([2.0]))
