"""Which channels can be removed with what makes them: found, refused with a reason, and really removed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.cost.subjects import find_subjects
from fewer.models.coupling import Couplings, find_links
from fewer.models.coupling_search import difference, group_size
from fewer.models.matching import match
from fewer.models.mobilenet import InvertedResidual
from fewer.models.running import tensors_of
from fewer.models.surgery import Link, Removal, operate, read_surgery
from fewer.models.vit import VisionTransformer
from tests.tiny import tiny


class Bottleneck(nn.Module):
    """As in ResNet, with a projection on the shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.down(x))


class TimmAttention(nn.Module):
    """timm's attention; ``fixed`` is its older form, which takes the width of its output from its input."""

    def __init__(self, width: int, heads: int, fixed: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim, self.fixed = heads, width // heads, width, fixed
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c if self.fixed else self.attn_dim))


class ApartAttention(nn.Module):
    """Queries, keys and values from a layer each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(x).view(b, n, self.num_attention_heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Twice(nn.Module):
    """One block under two names."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.also = block, block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Gated(nn.Module):
    """SwiGLU: two layers make the hidden units, one of them through a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class NormInside(nn.Module):
    """A LayerNorm over the hidden units mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(8, 32), nn.LayerNorm(32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.fc1(x)))


def lively(net: nn.Module) -> nn.Module:
    """BatchNorm statistics and scales that are no identity."""
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator))  # type: ignore[union-attr]
            module.running_var.data.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    return net.eval()


def found_in(net: nn.Module, x: Tensor) -> Couplings:
    before = copy.deepcopy(net.state_dict())
    result = find_links(net, match(net, x).units, x)
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    return result


NETS = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4)), (3, 8), {("0", "2"): 4}),
    "attention": (lambda: TimmAttention(24, 3, False), (2, 5, 24), {("qkv", "proj"): 8}),
    "attention in three": (lambda: ApartAttention(24, 3), (2, 5, 24), {("query", "key", "value", "out"): 8}),
    "gated": (Gated, (2, 5, 8), {("gate", "up", "down"): 4}),
    "prelu": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 4, 1)), (2, 3, 6, 6), {("0", "2"): 2},
    ),
    "flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4)),
        (2, 3, 6, 6), {("0", "3"): 2},
    ),
    "bottleneck": (lambda: Bottleneck(8, 16, 32), (2, 8, 6, 6), {("conv2", "conv3"): 2}),
    "inverted residual": (
        lambda: InvertedResidual(8, 8, 1, 4), (2, 8, 6, 6), {("conv.0.0", "conv.1.0", "conv.2"): 4},
    ),
    "chain": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 1),
        ),
        (2, 3, 12, 12), {("0", "3"): 2, ("6", "9"): 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_links_are_found_and_removing_them_is_the_same_as_masking(name: str) -> None:
    make, shape, wanted = NETS[name]
    torch.manual_seed(0)
    net, x = lively(make()), torch.randn(*shape)
    links = found_in(net, x).links
    assert {link.units: link.size for link in links} == wanted
    for link in links:
        kept = tuple(range(1, link.count, 2)) or (0,)
        masked = copy.deepcopy(net)
        weight = masked.get_submodule(link.consumer).weight.data
        grouped = weight.view(weight.shape[0], link.count, -1)
        grouped[:, [g for g in range(link.count) if g not in kept]] = 0
        small = operate(copy.deepcopy(net), [Removal(link, kept)])
        y = torch.randn(4, *shape[1:], generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            assert difference(tensors_of(masked(y)), tensors_of(small(y))) < 1e-5
        share = len(kept) / link.count
        for unit in link.producers:
            assert small.get_submodule(unit).weight.shape[0] == share * net.get_submodule(unit).weight.shape[0]
        assert small.get_submodule(link.consumer).weight.numel() == share * weight.numel()


def test_a_vision_transformer_loses_heads_and_hidden_units() -> None:
    torch.manual_seed(0)
    net = VisionTransformer(image_size=32, patch_size=16, width=24, depth=2, heads=3, num_classes=5).eval()
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.2)
    x = torch.randn(2, 3, 32, 32)
    found = found_in(net, x)
    assert [link.units for link in found.links] == [
        (f"blocks.{i}.{a}", f"blocks.{i}.{b}")
        for i in range(2)
        for a, b in (("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc2"))
    ]
    assert found.links[0].attention == "blocks.0.attn"
    small = operate(copy.deepcopy(net), [Removal(link, (0, 2)) for link in found.links])
    assert small.blocks[0].attn.heads == 2 and small.blocks[1].attn.qkv.weight.shape == (48, 24)
    assert small(x).shape == (2, 5)
    assert found.reasons is not None and "mixed" in found.reasons["blocks.0.mlp.fc1"]  # behind a LayerNorm
    assert set(found.reasons) == {u.name for u in match(net, x).units} - {link.consumer for link in found.links}


@pytest.mark.parametrize(
    ("net", "shape", "unit", "reason"),
    [
        (TimmAttention(24, 3, True), (2, 5, 24), "proj", "does not run when qkv makes fewer"),
        (NormInside(), (2, 8), "fc2", "what fc1 makes is mixed"),
        (nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 1, groups=4)), (2, 8, 4, 4), "1", "in groups"),
        (nn.Sequential(nn.Conv2d(8, 16, 1, groups=4), nn.Conv2d(16, 8, 1)), (2, 8, 4, 4), "1", "no layer before"),
        (nn.Sequential(nn.Conv2d(8, 16, 1), nn.GroupNorm(2, 16), nn.Conv2d(16, 8, 1)), (2, 8, 4, 4), "2", "mixed"),
        (nn.Sequential(nn.Conv2d(8, 4, 1), nn.PixelShuffle(2), nn.Conv2d(1, 8, 1)), (2, 8, 4, 4), "2", "no layer"),
    ],
)
def test_what_cannot_be_removed_has_a_reason(net: nn.Module, shape: tuple[int, ...], unit: str, reason: str) -> None:
    found = found_in(net.eval(), torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
    assert found.links == ()
    assert found.reasons is not None and reason in found.reasons[unit]


@pytest.mark.parametrize(
    ("name", "unit", "reason"),
    [
        ("tied", "head", "no layer"),
        ("tied", "first", "more than once"),
        ("dict-output", "boxes", "read elsewhere"),
        ("tuple-output", "stages.1", "read elsewhere"),
        ("called-twice", "mix", "more than once"),
    ],
)
def test_layers_that_are_shared_are_left_alone(name: str, unit: str, reason: str) -> None:
    net, x = tiny(name)
    found = found_in(net.eval(), x)
    assert found.reasons is not None and reason in found.reasons[unit]


def test_a_block_under_two_names_is_one_block() -> None:
    """As in MONAI's DynUNet: a change in it is seen in both places, so it may be cut."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    twice = Twice(net)
    x = torch.randn(2, 3, 12, 12)
    found = find_links(twice, match(twice, x).units, x)
    assert [link.units for link in found.links] == [("block.0", "block.3")]
    small = operate(copy.deepcopy(net), [Removal(Link("3", ("0",), ("1",), None, 16, 2), (0, 5))])
    assert small(x).shape == net(x).shape
    subject = find_subjects(twice, match(twice, x).units, x)
    assert [one.name for one in subject] == ["block.0", "block.3"]
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert find_subjects(tied, match(tied, torch.zeros(1, 4)).units, torch.zeros(1, 4)) == []


def test_a_layer_that_the_user_excludes_is_not_cut() -> None:
    net, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval(), torch.randn(3, 8)
    assert find_links(net, match(net, x, exclude="0").units, x).links == ()


def test_groups_are_as_wide_as_kernels_like_and_still_many() -> None:
    assert [group_size(n) for n in (1, 5, 16, 64, 128, 1280)] == [1, 1, 2, 8, 16, 16]


def test_surgery_is_read_back_and_a_damaged_one_refused() -> None:
    removal = Removal(Link("b", ("a",), ("n",), None, 8, 2), (1, 2))
    assert read_surgery([removal.to_dict()]) == [removal]
    for change in ({"kept": [4]}, {"kept": [2, 1]}, {"kept": []}, {"size": 3}, {"odd": 1}, {"producers": []}):
        with pytest.raises(FewerError, match="surgery"):
            read_surgery([removal.to_dict() | change])
    with pytest.raises(FewerError, match="another architecture"):
        operate(nn.Linear(3, 4), [removal])


def test_channels_last_weights_are_cut_as_well() -> None:
    torch.manual_seed(0)
    net = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval().to(memory_format=torch.channels_last)
    )
    x = torch.randn(2, 3, 8, 8)
    (link,) = found_in(net, x).links
    small = operate(copy.deepcopy(net), [Removal(link, (1, 5))])
    net[2].weight.data[:, [c for c in range(16) if c // 2 not in (1, 5)]] = 0
    with torch.no_grad():
        assert difference([net(x)], [small(x)]) < 1e-5


def test_half_precision_is_compared_as_exactly_as_it_computes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4)).to(torch.bfloat16).eval()
    assert len(found_in(net, torch.randn(3, 8, dtype=torch.bfloat16)).links) == 1


class Excited(nn.Module):
    """An inverted residual block with squeeze and excitation, whose gate is made by convolutions or linear layers."""

    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.expand, self.bn = nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.reduce = nn.Linear(32, 4) if linear else nn.Conv2d(32, 4, 1)
        self.gate = nn.Linear(4, 32) if linear else nn.Conv2d(4, 32, 1)
        self.project = nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.depthwise(F.silu(self.bn(self.expand(x)))))
        gate = self.gate(F.relu(self.reduce(y.mean((2, 3), keepdim=not self.linear)))).sigmoid()
        return x + self.project(y * (gate[..., None, None] if self.linear else gate))


@pytest.mark.parametrize("linear", [False, True])
def test_the_gate_of_squeeze_and_excitation_goes_with_its_channels(linear: bool) -> None:
    torch.manual_seed(0)
    net, x = Excited(linear).eval(), torch.randn(2, 8, 6, 6)
    link = next(one for one in find_links(net, match(net, x).units, x).links if one.consumer == "project")
    assert link.producers == ("expand", "depthwise", "gate") and link.readers == ("reduce",)
    assert link.followers == ("bn",) and link.units[-1] == "project"
    masked, kept = copy.deepcopy(net), (0, 2, 3, 5, 7)
    gone = torch.ones(link.count, link.size, dtype=torch.bool)
    gone[list(kept)] = False
    for name in ("project", "reduce"):  # what is cut off does neither reach the output nor the gate
        masked.get_submodule(name).weight.data[:, gone.flatten()] = 0
    removal = Removal(link, kept)
    small = operate(copy.deepcopy(net), read_surgery([removal.to_dict()]))
    assert small.get_submodule("reduce").weight.shape[1] == 20
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(x))


def test_a_layer_that_reads_the_channels_themselves_is_no_gate() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up, self.down = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1)
            self.last = nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(y + self.down(self.up(y).relu()))

    torch.manual_seed(0)
    net, x = Stream().eval(), torch.randn(2, 3, 5, 5)
    found = find_links(net, match(net, x).units, x)
    assert not any(link.readers for link in found.links) and "last" in (found.reasons or {})


def test_a_number_for_each_channel_that_is_no_layers_goes_as_well() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.gain = nn.Parameter(torch.rand(1, 16, 1, 1) + 0.5)
            self.other = nn.Parameter(torch.rand(16))  # as long, but of the output
            self.register_buffer("offset", torch.randn(16))

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(x) * self.gain + self.offset[:, None, None]
            return self.down(y.relu()) + self.other.mean()

    torch.manual_seed(0)
    net, x = Scaled().eval(), torch.randn(2, 3, 5, 5)
    (link,) = find_links(net, match(net, x).units, x).links
    assert set(link.followers) == {"gain", "offset"}
    small = operate(copy.deepcopy(net), [Removal(link, (0, 3, 4))])
    assert small.gain.shape == (1, 3 * link.size, 1, 1) and small.offset.shape == (3 * link.size,)
    assert isinstance(small.gain, nn.Parameter) and small.other.shape == (16,)
    with pytest.raises(FewerError, match="does not fit the model"):
        operate(copy.deepcopy(net), [Removal(Link("down", ("up",), ("gone",), None, 16, 4), (0,))])
