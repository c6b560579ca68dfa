"""Circuits and keys: old ones stay whole, damaged ones are told, and nothing is drawn from two circuits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.private.keys import load_circuit
from fewer.verbs.private import private_compile

IMAGES = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def net(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 3)).eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("circuits")
    private_compile(net(), IMAGES, place / "small")
    private_compile(net(8), IMAGES, place / "large")
    return place


def test_a_mistake_leaves_the_old_circuit_whole(made, tmp_path):
    shutil.copytree(made / "small", tmp_path / "circuit")
    before = load_circuit(tmp_path / "circuit")[0].run(IMAGES[:2].numpy())
    with pytest.raises(FewerError, match="holds a circuit already"):
        private_compile(net(8), IMAGES, tmp_path / "circuit")
    odd = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.LayerNorm(4))
    with pytest.raises(FewerError):
        private_compile(odd, IMAGES, tmp_path / "circuit", overwrite=True)
    assert np.array_equal(load_circuit(tmp_path / "circuit")[0].run(IMAGES[:2].numpy()), before)
    private_compile(net(8), IMAGES, tmp_path / "circuit", overwrite=True)
    assert not np.array_equal(load_circuit(tmp_path / "circuit")[0].run(IMAGES[:2].numpy()), before)


def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FewerError, match="not made by fewer private compile"):
        private_compile(net(), IMAGES, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_weights_of_another_circuit_are_refused(made, tmp_path):
    shutil.copytree(made / "small", tmp_path / "circuit")
    shutil.copy(made / "large" / "circuit.npz", tmp_path / "circuit" / "circuit.npz")
    with pytest.raises(FewerError, match="is not the circuit that"):
        load_circuit(tmp_path / "circuit")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("0.keys", lambda a: a + 10**6),
        ("0.keys", lambda a: a[:, :2]),
        ("0.bias", lambda a: a[:, :7]),
        ("0.bias", lambda a: a * np.nan),
        ("0.values", lambda a: a * np.inf),
        ("0.at", lambda a: a + 10**9),
        ("steps", lambda a: a[:-5]),
    ],
)
def test_a_damaged_circuit_is_told(made, tmp_path, name, change):
    shutil.copytree(made / "small", tmp_path / "circuit")
    path = tmp_path / "circuit" / "circuit.npz"
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(FewerError, match=r"circuit\.npz"):
        load_circuit(tmp_path / "circuit")
