"""A translator in front of a network: saved as names and numbers, built again, and scaled as in the training."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.segment.adapt_network import TargetFirst, build_adapted, source_of

pytest.importorskip("monai", reason="needs the [medical] extra")

ARGS = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2], "num_res_units": 0,
}  # fmt: skip


def made() -> TargetFirst:
    torch.manual_seed(0)
    found = build_adapted("target-first", {"channels": 1, "width": 4, "blocks": 1, "name": "UNet", "args": ARGS})
    assert isinstance(found, TargetFirst)
    return found.eval()


def test_the_recipe_builds_the_same_architecture() -> None:
    model = made()
    source = source_of(model, {"kind": "monai", "name": "UNet", "args": ARGS})
    again = build_adapted(source["name"], source["args"])
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model(x)) and model(x).shape == (1, 2, 32, 32)


def test_the_network_sees_images_of_mean_0_and_deviation_1() -> None:
    model, seen = made(), []
    model.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(1 + torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert seen[0].mean((2, 3)).abs().max() < 1e-4 and (seen[0].std((2, 3), correction=0) - 1).abs().max() < 1e-3


def test_a_patch_is_cut_into_slices_as_the_whole_volume_is() -> None:
    """A patch may be shortest along another axis than the volumes that the translator learned from."""
    args = {**ARGS, "spatial_dims": 3}
    recipe = {"channels": 1, "width": 4, "blocks": 1, "name": "UNet", "args": args, "axis": 2}
    model = build_adapted("target-first", recipe)
    assert isinstance(model, TargetFirst)
    seen: list[torch.Size] = []
    model.translator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        model.eval()(torch.rand(1, 1, 8, 16, 12))
    assert seen == [(12, 1, 8, 16)]
    assert source_of(model, {"kind": "monai", "name": "UNet", "args": args})["args"] == recipe
    with pytest.raises(FewerError, match="axis"):
        build_adapted("target-first", {**recipe, "axis": 3})


def test_what_no_recipe_may_name_is_refused() -> None:
    with pytest.raises(FewerError, match="has no network"):
        build_adapted("other", {})
    with pytest.raises(FewerError, match="which no recipe may"):
        build_adapted("target-first", {"channels": 1, "width": 4, "blocks": 1, "name": "os.system", "args": {}})
    with pytest.raises(FewerError, match="own networks"):
        source_of(made(), {"kind": "file"})
