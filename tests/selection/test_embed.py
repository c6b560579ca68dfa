"""Embedding a pool: the same vectors on every backend, nothing done twice, broken files named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.data.decode import read_image, to_array
from fewer.data.images import list_images
from fewer.models.spec import load_model
from fewer.selection.embed import EmbedJob, embed


def names_in(pool: Path) -> list[str]:
    return [path.relative_to(pool).as_posix() for path in list_images(pool)]


def by_hand(pool: Path, net: str) -> np.ndarray:
    """The oracle: the network without its last layer, image after image."""
    loaded = load_model(net)
    trunk = nn.Sequential(*list(loaded.model)[:-1]).eval()
    with torch.no_grad():
        return np.concatenate(
            [trunk(torch.from_numpy(to_array(read_image(p), loaded.preprocess))[None]) for p in list_images(pool)]
        )


@pytest.mark.parametrize(
    "backend", ["serial", "thread", pytest.param("process"), pytest.param("ray", marks=pytest.mark.cluster)]
)
def test_vectors_are_those_of_the_penultimate_layer(pool, net, tmp_path, backend):
    if backend == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'fewer[cluster]'")
    told = []
    job = EmbedJob(pool, net, threads=1)
    done = embed(
        job, names_in(pool), tmp_path / "v", batch=5, backend=backend, workers=2, advance=lambda n, name: told.append(n)
    )
    np.testing.assert_allclose(done.vectors, by_hand(pool, net), rtol=1e-4, atol=1e-5)
    assert done.skipped == {} and sum(told) == 24
    assert ((done.foreground > 0.1) & (done.foreground < 0.2)).all()  # the square is 64 of 480 pixels


def test_an_interrupted_run_goes_on_and_new_images_are_added(pool, net, tmp_path, monkeypatch):
    names = names_in(pool)
    read = []

    def counting(path):
        read.append(path.name)
        if len(read) == 13:
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("fewer.data.decode.read_image", counting)
    with pytest.raises(KeyboardInterrupt):
        embed(EmbedJob(pool, net), names, tmp_path / "v", batch=4)
    read[:] = ["already"] * 20
    done = embed(EmbedJob(pool, net), names, tmp_path / "v", batch=4)
    assert done.resumed == 12 and len(read) == 20 + 12
    np.testing.assert_allclose(done.vectors, by_hand(pool, net), rtol=1e-4, atol=1e-5)
    again = embed(EmbedJob(pool, net), [*names, names[0]], tmp_path / "v", batch=7)
    assert again.resumed == 24
    np.testing.assert_allclose(again.vectors[24], again.vectors[0], rtol=1e-5)
    other = embed(EmbedJob(pool, net, layer="0"), names, tmp_path / "w")
    assert other.vectors.shape == (24, 6)
    assert embed(EmbedJob(pool, net, preprocess={"crop": 0.5}), names, tmp_path / "v").resumed == 0


def test_broken_images_are_skipped_and_named(pool, net, tmp_path):
    for name in ("a/02.png", "b/05.png"):
        (pool / name).write_bytes((pool / name).read_bytes()[:60])
    names = names_in(pool)
    done = embed(EmbedJob(pool, net), names, tmp_path / "v", batch=5)
    assert {names[row] for row in done.skipped} == {"a/02.png", "b/05.png"}
    assert all(done.skipped.values()) and not done.vectors[list(done.skipped)].any()
    good = [i for i in range(24) if i not in done.skipped]
    assert done.vectors[good].any(1).all() and np.isnan(done.foreground[list(done.skipped)]).all()
    # a mended file is read on the next call, the others are not read again
    (pool / "a" / "04.png").replace(pool / "a" / "02.png")
    mended = embed(EmbedJob(pool, net), names, tmp_path / "v", gone=frozenset({names.index("a/04.png")}))
    assert [names[row] for row in mended.skipped] == ["b/05.png"] and mended.resumed == 22


def test_nothing_readable_is_one_sentence(pool, net, tmp_path):
    for path in list_images(pool):
        path.write_bytes(b"no picture")
    with pytest.raises(FewerError, match=r"none of the 24 images can be read; the first: a/00.png: "):
        embed(EmbedJob(pool, net), names_in(pool), tmp_path / "v")


def test_features_that_are_nan_are_told_as_such(pool, net, tmp_path):
    with pytest.raises(FewerError, match="NaN or infinite"):
        embed(EmbedJob(pool, net.replace(":net", ":nan")), names_in(pool), tmp_path / "v")


def test_a_full_disk_is_told_before_the_work(pool, net, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FewerError, match=r"no space left on the disk while writing .*v;"):
        embed(EmbedJob(pool, net), names_in(pool), tmp_path / "v")


def test_a_disk_that_fills_in_the_midst_keeps_what_was_done(pool, net, tmp_path, monkeypatch):
    pwrite = os.pwrite
    calls = []

    def filling(handle, data, place):
        calls.append(place)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(handle, data, place)

    monkeypatch.setattr(os, "pwrite", filling)
    with pytest.raises(FewerError, match="no space left"):
        embed(EmbedJob(pool, net), names_in(pool), tmp_path / "v", batch=4)
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert embed(EmbedJob(pool, net), names_in(pool), tmp_path / "v", batch=4).resumed == 8
