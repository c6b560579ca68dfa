"""Every number format against plain enumeration: nearest is nearest, stochastic has the right mean, codes fit."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.formats.grids import ELEMENTS, element_bits, grid_of
from fewer.formats.number import Format, parse_format, quantize, rounded_to

NAMES = [
    name + bits for name in ELEMENTS for bits in (("2", "4", "8") if name in ("int", "uint", "pot", "apot") else ("",))
]
SHARES = ["tensor", "channel", "row", "block"]


def values(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_codes_fit_into_the_bits_and_the_grid_is_ascending(name: str) -> None:
    grid = grid_of(name)
    assert len(grid) <= 2 ** element_bits(name) and bool((grid.diff() > 0).all())
    if not name.startswith("uint"):
        assert torch.equal(grid, -grid.flip(0))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", NAMES)
def test_nearest_is_the_nearest_of_all_values(name: str, share: str) -> None:
    x = values()
    coded = quantize(x, Format(name, share, block=8))  # type: ignore[arg-type]
    dense = coded.dense()
    assert dense.shape == x.shape and coded.codes.dtype == torch.uint8
    if name == "ternary":
        return  # its threshold is not half of its scale; see the test of its own
    grid = grid_of(name)
    for code in range(0, len(grid), max(1, len(grid) // 16)):  # no other code comes nearer
        other = type(coded)(torch.full_like(coded.codes, code), coded.scale, coded.zero, coded.format).dense()
        assert bool(((dense - x).abs() <= (other - x).abs() + 1e-5).all())


@pytest.mark.parametrize("share", ["tensor", "block"])
@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_stochastic_rounding_is_the_value(name: str, share: str) -> None:
    x = values()[:, :2]
    how = Format(name, share, 8, "stochastic")  # type: ignore[arg-type]
    draw, count = torch.Generator().manual_seed(1), 200
    drawn = torch.stack([rounded_to(x, how, draw) for _ in range(count)])
    # of the noisiest value: one that is rarely rounded up may by chance never have been
    error = float(drawn.std(0).max()) / count**0.5
    assert float((drawn.mean(0) - x).abs().max()) <= 5 * error + 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_feedback_keeps_the_sums_of_channels(name: str) -> None:
    x = 0.7 * values().clamp(-1, 1)
    x[:, 0, :2] = torch.tensor([1.0, -1.0])  # nothing that follows is clipped
    near, fed = (rounded_to(x, Format(name, "tensor", rounding=r)) for r in ("nearest", "feedback"))  # type: ignore[arg-type]
    step = float(quantize(x, Format(name)).scale.max()) * float(grid_of(name).diff().max())
    if name in (
        "binary",
        "ternary",
        "nvfp4",
        "pot2",
        "apot2",
    ):  # values beyond the scale are clipped, and their error cannot be handed on
        assert (fed - x).sum() <= (near - x).abs().sum()
    else:
        assert bool(((fed - x).flatten(1).sum(1).abs() <= step + 1e-4).all())


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_empty_scales_and_bad_numbers(name: str) -> None:
    zeros = rounded_to(torch.zeros(2, 4), Format(name, "channel"))
    assert bool(torch.isfinite(zeros).all())
    with pytest.raises(FewerError, match="NaN or infinity"):
        quantize(torch.tensor([1.0, float("nan")]), Format(name))


def test_small_floats_are_those_of_torch() -> None:
    for name, dtype in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
        every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
        finite = every[torch.isfinite(every)]
        assert torch.equal(grid_of(name), finite.unique() + 0.0)
        x = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
        x[0] = float(grid_of(name).max())  # the scale is then 1
        assert torch.equal(rounded_to(x, Format(name)), x.to(dtype).float())


def test_ternary_and_binary_are_the_closed_forms_of_their_papers() -> None:
    x = values().reshape(3, -1)
    for row, got in zip(x, rounded_to(x, Format("ternary", "channel")), strict=True):
        above = row.abs() > 0.7 * row.abs().mean()
        assert torch.allclose(got, row.sign() * above * row.abs()[above].mean())
    for row, got in zip(x, rounded_to(x, Format("binary", "channel")), strict=True):
        assert torch.allclose(got.abs(), row.abs().mean().expand_as(row)) and torch.equal(got.sign(), row.sign())


def test_scales_of_the_microformats() -> None:
    x = values().reshape(3, 35) * 100
    mx, nv = quantize(x, Format("mxfp4")), quantize(x, Format("nvfp4"))
    assert mx.scale.shape == (6, 1) and torch.equal(mx.scale.log2(), mx.scale.log2().round())
    whole = float(x.abs().max()) / (6 * 448)
    steps = nv.scale / whole
    assert nv.scale.shape == (9, 1) and torch.allclose(steps, steps.to(torch.float8_e4m3fn).float(), rtol=1e-5)


def test_apot_of_four_bits_is_the_papers_set() -> None:
    # one term of two bits and one of one bit: {0, 1, 1/2, 1/4} + {0, 1/8}, over the largest
    wanted = sorted({(a + b) / 1.125 for a in (0, 1, 0.5, 0.25) for b in (0, 0.125)})
    assert torch.allclose(grid_of("apot4")[7:], torch.tensor(wanted))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("int9", "no number format int has 9 bits"),
        ("int", "needs its bits"),
        ("nvfp", "did you mean 'nvfp4'"),
        ("int4:chanel", "did you mean 'channel'"),
        ("e4m3x", "did you mean 'e4m3'"),
    ],
)
def test_a_format_that_does_not_exist_is_told(text: str, told: str) -> None:
    with pytest.raises(FewerError, match=told):
        parse_format(text)


def test_bits_count_the_scales() -> None:
    assert Format("nvfp4").bits_per_value((16, 64)) == 4 + 8 / 16 + 32 / 1024
    assert Format("mxfp4").bits_per_value((16, 64)) == 4 + 8 / 32
    assert Format("int4").bits_per_value((16, 64)) == 4 + 32 / 1024
