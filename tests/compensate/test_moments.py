"""Streamed moments against those of all rows at once."""

import pytest
import torch
from torch import nn

from fewer.compensate import moments as room
from fewer.compensate.moments import Moments, collect_moments, column_blocks
from fewer.core.errors import FewerError
from fewer.models.inputs import input_rows


def test_blocks_cover_all_columns_once():
    for columns in range(1, 40):
        for limit in range(1, 12):
            blocks = column_blocks(columns, limit)
            assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(columns))
            sizes = [b.stop - b.start for b in blocks]
            assert max(sizes) <= limit and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("limit", [100, 4])
def test_streamed_moments_equal_those_of_all_rows(limit, monkeypatch):
    monkeypatch.setattr(room, "column_blocks", lambda n, most=limit: column_blocks(n, most))
    rows = torch.randn(50, 3, 10, generator=torch.Generator().manual_seed(0)) + 1
    moments = Moments(3, 10)
    for part in rows.split(7):
        moments.add(part)
    assert moments.count == 50 and len(moments.blocks) == (1 if limit == 100 else 3)
    torch.testing.assert_close(moments.mean(), rows.mean(0))
    torch.testing.assert_close(moments.diagonal(), rows.square().mean(0))
    for g in range(3):
        for i, b in enumerate(moments.blocks):
            torch.testing.assert_close(moments.second(i)[g], rows[:, g, b].T @ rows[:, g, b] / 50)
            torch.testing.assert_close(
                moments.covariance(i)[g], torch.cov(rows[:, g, b].T, correction=0).reshape(b.stop - b.start, -1)
            )


class Mixed(nn.Module):
    """A grouped convolution, a linear layer called with a keyword, and one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.fc = nn.Linear(6, 6)
        self.twin = nn.Linear(6, 6)
        self.twin.weight = self.fc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).mean((2, 3))
        return self.twin(self.fc(input=x))


def test_collecting_runs_over_calls_users_and_batches():
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(6, 4, 7, 7)
    names = {"conv": [net.conv], "fc": [net.fc, net.twin]}
    found = collect_moments(net, names, x.split(4), lambda m, b: m(b))
    conv = input_rows(net.conv, x)
    torch.testing.assert_close(found["conv"].second(0), torch.einsum("ngi,ngj->gij", conv, conv) / len(conv))
    with torch.no_grad():
        pooled = net.conv(x).mean((2, 3))
        both = torch.cat([pooled, net.fc(pooled)])
    torch.testing.assert_close(found["fc"].mean()[0], both.mean(0))
    torch.testing.assert_close(found["fc"].second(0)[0], both.T @ both / 12)
    assert not net.fc._forward_pre_hooks


def test_nan_names_the_layer():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].bias.data[0] = float("nan")
    with pytest.raises(FewerError, match="'b' holds NaN"):
        collect_moments(net, {"a": [net[0]], "b": [net[1]]}, [torch.ones(1, 2)], lambda m, b: m(b))


def test_of_a_wide_product_half_is_computed_and_the_rest_is_its_mirror():
    rows = torch.randn(1500, 1, 1100)
    moments = Moments(1, 1100)
    for part in rows.split(700):  # the last part is too small to be worth it
        moments.add(part)
    product = moments.products[0][0]
    assert torch.equal(product, product.T)
    assert torch.allclose(product, rows[:, 0].T @ rows[:, 0], rtol=1e-4, atol=1e-2)
