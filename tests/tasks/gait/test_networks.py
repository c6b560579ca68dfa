"""Networks: names of parameters, padded batches, sizes that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.tasks.gait.networks import NETWORKS, NetworkConfig, build_network
from fewer.tasks.gait.networks.build import load_published
from fewer.tasks.gait.networks.parts import EachFrame
from fewer.tasks.gait.tpa import CHOICES, TPAConfig

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name: str) -> list[str]:
    return [f"{name}.{key}" for key in NORM]


def gaitbase_keys() -> list[str]:
    body = "Backbone.forward_block"
    keys = [f"{body}.conv1.conv.weight", *norm(f"{body}.bn1")]
    for stage in range(1, 5):
        block = f"{body}.layer{stage}.0"
        keys += [f"{block}.conv1.weight", *norm(f"{block}.bn1"), f"{block}.conv2.weight", *norm(f"{block}.bn2")]
        if stage > 1:
            keys += [f"{block}.downsample.0.weight", *norm(f"{block}.downsample.1")]
    return [*keys, "FCs.fc_bin", "BNNecks.fc_bin", *norm("BNNecks.bn1d")]


def gaitset_keys() -> list[str]:
    sets = [f"set_block{b}.forward_block.{i}.conv.weight" for b in (1, 2, 3) for i in (0, 2)]
    return [*sets, *[f"gl_block{b}.{i}.conv.weight" for b in (2, 3) for i in (0, 2)], "Head.fc_bin"]


def gaitpart_keys() -> list[str]:
    body = [f"Backbone.forward_block.feature.{i}.conv.weight" for i in (0, 2, 5, 7, 10, 12)]
    gates = [
        f"TFA.pooling_func.conv1d{kind}.{part}.{i}.conv.weight"
        for kind in ("3x1", "3x3") for part in range(16) for i in (0, 2)
    ]  # fmt: skip
    return [*body, *gates, "Head.fc_bin"]


def gaitgl_keys() -> list[str]:
    blocks = [
        f"{b}.{k}_conv3d.conv3d.weight" for b in ("GLConvA0", "GLConvA1", "GLConvB2") for k in ("global", "local")
    ]
    first = ["conv3d.0.conv3d.weight", "LTA.0.conv3d.weight"]
    return [*first, *blocks, "HPP.p", "Head0.fc_bin", *norm("Bn"), "Head1.fc_bin"]


def deepgaitv2_keys() -> list[str]:
    first, block = "layer0.forward_block", "layer1.forward_block.0"
    keys = [f"{first}.0.weight", *norm(f"{first}.1")]
    keys += [f"{block}.conv1.weight", *norm(f"{block}.bn1"), f"{block}.conv2.weight", *norm(f"{block}.bn2")]
    for stage in (2, 3, 4):
        block = f"layer{stage}.0"
        for conv in ("conv1", "conv2"):
            keys += [f"{block}.{conv}.forward_block.0.weight", *norm(f"{block}.{conv}.forward_block.1")]
        keys += [f"{block}.shortcut3d.weight", *norm(f"{block}.sbn")]
        keys += [f"{block}.downsample.0.weight", *norm(f"{block}.downsample.1")]
    return [*keys, "FCs.fc_bin", "BNNecks.fc_bin", *norm("BNNecks.bn1d")]


KEYS = {
    "gaitbase": gaitbase_keys, "gaitset": gaitset_keys, "gaitpart": gaitpart_keys, "gaitgl": gaitgl_keys,
    "deepgaitv2": deepgaitv2_keys,
}  # fmt: skip
SHAPES = {
    "gaitbase": {"FCs.fc_bin": (16, 512, 256), "BNNecks.fc_bin": (16, 256, 74)},
    "gaitset": {"Head.fc_bin": (62, 128, 256), "set_block1.forward_block.0.conv.weight": (32, 1, 5, 5)},
    "gaitpart": {"Head.fc_bin": (16, 128, 128), "TFA.pooling_func.conv1d3x3.0.2.conv.weight": (128, 32, 3)},
    "gaitgl": {"Head0.fc_bin": (64, 128, 128), "Head1.fc_bin": (64, 128, 74)},
    "deepgaitv2": {"FCs.fc_bin": (16, 512, 256), "layer2.0.shortcut3d.weight": (128, 128, 3, 1, 1)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_named_as_in_opengait(name: str) -> None:
    with torch.device("meta"):
        net = build_network(NetworkConfig(network=name, size="published"))  # type: ignore[arg-type]
    state = net.state_dict()
    assert sorted(state) == sorted(KEYS[name]())
    for key, shape in SHAPES[name].items():
        assert tuple(state[key].shape) == shape


@pytest.mark.parametrize("tpa", [None, TPAConfig(), CHOICES["moments"]], ids=["plain", "tpa", "moments"])
@pytest.mark.parametrize("name", NETWORKS)
def test_padded_batches_equal_single_sequences(name: str, tpa: TPAConfig | None) -> None:
    torch.manual_seed(0)
    net = build_network(NetworkConfig(network=name, size="tiny", classes=3, tpa=tpa)).double()  # type: ignore[arg-type]
    net.train()
    with torch.no_grad():
        net.train_outputs(torch.rand(2, 6, 64, 44, dtype=torch.float64))  # batch norms that are not the identity
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    net.eval()
    lengths = [17, 9, 5]
    x = torch.rand(3, 17, 64, 44, dtype=torch.float64)
    with torch.no_grad():
        found = net(x, torch.tensor(lengths))
        for i, length in enumerate(lengths):
            alone = net(x[i : i + 1, :length])
            assert torch.allclose(found[i], alone[0], atol=1e-9), (name, length)
        assert net(x[:, :1]).isfinite().all()  # a single frame
        for frames, lengths in ((17, [2, 1, 17]), (3, [1, 3, 2]), (2, [1, 2, 2])):  # less than a stride over time
            found = net(x[:, :frames], torch.tensor(lengths))
            for i, length in enumerate(lengths):
                assert torch.allclose(found[i], net(x[i : i + 1, :length])[0], atol=1e-9), (name, length)


def test_frames_with_channels_last_give_what_they_give_otherwise() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    x = torch.rand(2, 3, 4, 9, 7)
    plain = layers(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4)).transpose(1, 2)
    assert torch.allclose(EachFrame(layers)(x), plain, atol=1e-6)
    seen: list[bool] = []
    one = nn.Conv2d(1, 5, 3)
    one.register_forward_hook(lambda _m, _i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last)))
    EachFrame(one)(torch.rand(2, 1, 4, 9, 7))
    assert seen == [True]  # a single channel as well, which the field's silhouettes have


@pytest.mark.parametrize("name", ["gaitbase", "deepgaitv2"])
def test_a_stem_with_stride_keeps_the_strips(name: str) -> None:
    net = build_network({"network": name, "size": "small", "classes": 3}).eval()
    with torch.no_grad():
        found, _ = net.trunk(torch.rand(1, 1, 2, 64, 44), None)
        assert found.shape[2:] == (2, 16, 11) and net(torch.rand(1, 2, 64, 44)).shape[2] == 16


def test_the_module_sees_full_precision_in_a_mixed_training() -> None:
    net = build_network(NetworkConfig(size="tiny", classes=3, tpa=TPAConfig()))
    seen: list[torch.dtype] = []
    assert net.tpa is not None
    net.tpa.register_forward_pre_hook(lambda _m, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings, _ = net.train_outputs(torch.rand(2, 12, 64, 44))
    embeddings.float().sum().backward()
    assert seen == [torch.float32] and net.FCs.fc_bin.grad.isfinite().all()


def test_published_weights_load_strictly_or_not_at_all() -> None:
    config = NetworkConfig(size="tiny", classes=3)
    first, second = build_network(config), build_network(config)
    load_published(second, first.state_dict())
    assert torch.equal(second.state_dict()["FCs.fc_bin"], first.state_dict()["FCs.fc_bin"])
    with pytest.raises(FewerError, match="number of classes"):
        load_published(build_network(NetworkConfig(size="tiny", classes=4)), first.state_dict())
    with pytest.raises(FewerError, match="another network"):
        load_published(build_network(NetworkConfig(network="gaitset", size="tiny")), first.state_dict())


def test_what_is_no_batch_is_told() -> None:
    net = build_network({"size": "tiny"})
    with pytest.raises(FewerError, match="sequences, frames"):
        net(torch.zeros(3, 64, 44))
    with pytest.raises(FewerError, match="64 x 44"):
        net(torch.zeros(1, 3, 60, 44))
    with pytest.raises(FewerError, match="did you mean 'gaitbase'"):
        build_network({"network": "gaitbas"})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"network": "gaitset", "channels": (4, 4)}, "3 widths"),
        ({"network": "gaitbase", "channels": (4, 0, 4, 4)}, "4 widths from 1"),
        ({"network": "gaitgl", "outs": 8}, "leave out the outs"),
    ],
)
def test_widths_that_no_network_has(values: dict, told: str) -> None:
    with pytest.raises(FewerError, match=told):
        build_network(values)
    assert build_network({"network": "gaitset", "channels": (4, 6, 8), "outs": 5}).Head.fc_bin.shape[1:] == (8, 5)
