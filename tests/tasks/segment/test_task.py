"""The task as the verbs see it: which data it knows, and which networks it offers."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.tasks import open_task


def test_it_knows_images_with_masks_and_nothing_else(disc_data, tmp_path) -> None:
    task = open_task("segment")
    assert task.recognises(disc_data) and not task.recognises(disc_data / "images")
    (tmp_path / "dog").mkdir()
    assert not task.recognises(tmp_path) and not task.recognises(tmp_path / "nowhere")


def test_every_network_is_one_that_a_training_can_be_planned_with(disc_data) -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    task = open_task("segment")
    for name in ("unet", "dynunet"):
        assert name in task.networks()
        settings = task.settings(network=name, width=4, levels=3, patch_voxels=1024)
        assert any(
            f"network monai/{name}".lower() in line.lower() or name in line.lower()
            for line in task.plan(disc_data, settings)
        )
    with pytest.raises(FewerError, match="has no network"):
        task.network("nothing", {})
