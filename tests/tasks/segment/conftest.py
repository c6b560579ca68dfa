"""One thread for nets this small: more only wait for each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fewer.tasks.segment.settings import TrainSettings
from tests.tasks.segment.simulated import write_folder


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def disc_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight simulated pictures of discs with masks."""
    return write_folder(tmp_path_factory.mktemp("discs") / "data", 8, (32, 36))


@pytest.fixture(scope="session")
def disc_run(disc_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a network that had a few steps only: what it says is of no use, but it says it."""
    pytest.importorskip("monai", reason="needs the [medical] extra")
    from fewer.tasks.segment.training import train

    out = tmp_path_factory.mktemp("run") / "run"
    settings = TrainSettings(width=4, levels=3, patch_voxels=1024, batch=4, steps=4, every=2, learning_rate=4e-3)
    train(disc_data, out=out, settings=settings)
    return out
