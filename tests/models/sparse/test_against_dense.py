"""Sparse convolution against dense convolution on random grids: all strides, kernels, sizes; an empty scan."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from fewer.models.sparse import Sites, SparseConv3d, SparseInverseConv3d, SparseSequential, SubMConv3d, rulebook

KERNELS = [(3, 3, 3), (1, 3, 3), (3, 1, 1), (2, 2, 2), (1, 1, 1), (5, 3, 1)]


def random_sites(seed: int, *, channels: int = 3, fill: float = 0.3) -> Sites:
    """Three grids of odd and even sides; the middle one is empty."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(int(n) for n in torch.randint(1, 10, (3,), generator=generator))
    taken = torch.rand(3, *shape, generator=generator) < fill
    taken[1] = False
    taken[0].view(-1)[0] = True
    where = taken.nonzero()
    features = torch.randn(len(where), channels, generator=generator, dtype=torch.float64)
    return Sites(features.requires_grad_(), where, shape, 3)  # type: ignore[arg-type]


def dense_answer(layer, sites: Sites, where: torch.Tensor, stride, padding, dilation) -> torch.Tensor:
    """Values of a dense convolution at some sites of its output."""
    out = F.conv3d(sites.dense(), layer.weight, layer.bias, stride, padding, dilation)
    return out[where[:, 0], :, where[:, 1], where[:, 2], where[:, 3]]


def compare(got: torch.Tensor, wanted: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """The same values, and the same gradients of a random weighing of them."""
    assert torch.allclose(got, wanted, atol=1e-10)
    if not got.numel():
        return
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    first = torch.autograd.grad((got * weights).sum(), leaves, allow_unused=True)
    second = torch.autograd.grad((wanted * weights).sum(), leaves, allow_unused=True)
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a if a is not None else torch.zeros_like(b), b, atol=1e-10)


@pytest.fixture(params=["table", "bisection"])
def lookup(request, monkeypatch) -> None:
    """Both ways in which sites are looked up."""
    if request.param == "bisection":
        monkeypatch.setattr(rulebook, "_MOST_CELLS", 0)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if all(n % 2 for n in k)])
@pytest.mark.parametrize("seed", range(4))
def test_submanifold(kernel, seed, lookup):
    sites = random_sites(seed)
    layer = SubMConv3d(3, 4, kernel, bias=True).double()
    out = SparseSequential(layer)(sites)
    assert torch.equal(out.where, sites.where)
    padding = tuple(k // 2 for k in kernel)
    compare(out.features, dense_answer(layer, sites, out.where, 1, padding, 1), [sites.features, *layer.parameters()])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_strided(kernel, stride, padding, lookup):
    for seed in range(4):
        sites = random_sites(seed)
        if any(n + 2 * padding < k for n, k in zip(sites.shape, kernel, strict=True)):
            continue
        layer = SparseConv3d(3, 4, kernel, stride, padding).double()
        out = SparseSequential(layer)(sites)
        assert not (out.where[:, 0] == 1).any()
        wanted = dense_answer(layer, sites, out.where, stride, padding, 1)
        compare(out.features, wanted, [sites.features, layer.weight])
        whole = F.conv3d(sites.dense(), layer.weight, None, stride, padding)
        assert out.dense().shape == whole.shape
        assert torch.allclose(out.dense(), whole, atol=1e-10)  # no output site is missing


@pytest.mark.parametrize("seed", range(4))
def test_inverse(seed, lookup):
    sites = random_sites(seed)
    down, up = SparseConv3d(3, 4, 3, 2, 1, key="a").double(), SparseInverseConv3d(4, 2, 3, key="a").double()
    out = SparseSequential(down, up)(sites)
    coarse = F.conv3d(sites.dense(), down.weight, None, 2, 1)
    spare = [n - ((m - 1) * 2 - 2 + 3) for n, m in zip(sites.shape, coarse.shape[2:], strict=True)]
    fine = F.conv_transpose3d(coarse, up.weight.transpose(0, 1), None, 2, 1, spare)
    wanted = fine[sites.where[:, 0], :, sites.where[:, 1], sites.where[:, 2], sites.where[:, 3]]
    compare(out.features, wanted, [sites.features, down.weight, up.weight])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_work_is_the_number_of_pairs(kernel, stride, lookup):
    sites = random_sites(3)
    layer = SparseConv3d(3, 4, kernel, stride, 1)
    if any(n + 2 < k for n, k in zip(sites.shape, kernel, strict=True)):
        pytest.skip("the kernel is larger than this grid")
    rules = layer.book(sites)
    sides = [(n + 2 - k) // stride + 1 for n, k in zip(sites.shape, kernel, strict=True)]
    pairs = 0
    for _, *place in sites.where.tolist():
        for out in itertools.product(*(range(n) for n in sides)):
            taps = [p + 1 - o * stride for p, o in zip(place, out, strict=True)]
            pairs += all(0 <= t < k for t, k in zip(taps, kernel, strict=True))
    layer.put_down(sites.features, rules)
    assert rules.count == pairs
    assert layer.positions * math.prod(kernel) == pairs


def test_one_offset_after_another_does_the_same():
    for seed in range(4):
        sites = random_sites(seed)
        layers = [SubMConv3d(3, 4, 3).double(), SparseConv3d(3, 4, 3, 2, 1).double()]
        for layer in layers:
            if min(sites.shape) < 2 and isinstance(layer, SparseConv3d):
                continue
            wanted = SparseSequential(layer)(sites).features
            made = layer.by_offset(layer.linears())
            assert torch.allclose(SparseSequential(made)(sites).features, wanted, atol=1e-10)
