"""Layer inputs as rows: the row product is the layer."""

import pytest
import torch
from torch import nn

from fewer.models import inputs as inputs_room
from fewer.models.inputs import input_rows, layer_input, sampled_rows
from fewer.patterns import to_matrix

CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3), (2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding="same", dilation=2), (2, 4, 11)),
    (nn.Conv1d(4, 8, 3, stride=2, padding=2, padding_mode="circular", groups=2), (2, 4, 9)),
    (nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 5, 7)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (3, 4, 7, 6)),
    (nn.Conv2d(4, 6, 3, dilation=(2, 1), padding=(2, 1), padding_mode="reflect"), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, (4, 3), padding="same", padding_mode="replicate"), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2), groups=2), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, 2, padding="valid", stride=3), (2, 4, 8, 8)),
    (nn.Conv3d(2, 4, (3, 2, 1), stride=(1, 2, 1), padding=(1, 1, 0), groups=2), (2, 2, 5, 6, 4)),
    (nn.Conv3d(2, 4, 3, padding="same", padding_mode="circular"), (2, 2, 5, 6, 4)),
]


def product(layer: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Outputs of all rows, shape (rows, out)."""
    groups = getattr(layer, "groups", 1)
    weight = to_matrix(layer.weight.detach()).reshape(groups, -1, layer.weight[0].numel())
    return torch.einsum("ngd,grd->ngr", rows, weight).flatten(1) + layer.bias.detach()


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: str(v) if isinstance(v, nn.Module) else "")
def test_rows_times_weight_is_the_convolution(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted = layer(x).detach().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(product(layer, input_rows(layer, x)), wanted, rtol=1e-4, atol=1e-5)
    single = layer(x[0]).detach().movedim(0, -1).flatten(0, -2)
    torch.testing.assert_close(product(layer, input_rows(layer, x[0])), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_rows_times_weight_is_the_linear_layer(shape):
    layer, x = nn.Linear(5, 4), torch.randn(shape)
    wanted = layer(x).detach().reshape(-1, 4)
    torch.testing.assert_close(product(layer, input_rows(layer, x)), wanted, rtol=1e-4, atol=1e-5)


def test_the_input_is_found_by_position_and_by_keyword():
    x = torch.ones(1)
    assert layer_input((x,), {}) is x
    assert layer_input((), {"input": x}) is x


@pytest.mark.parametrize("chunk_bytes", [1, 400, 10**9])
def test_sampled_rows_do_not_depend_on_chunks_and_agree_between_inputs(chunk_bytes, monkeypatch):
    monkeypatch.setattr(inputs_room, "_CHUNK_BYTES", chunk_bytes)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.randn(5, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    parts = list(sampled_rows(layer, (x, 2 * x), 25))
    one, two = (torch.cat(column) for column in zip(*parts, strict=True))
    assert torch.equal(two, 2 * one)
    # 120 rows over 25 is a stride of 4; 4 would only see every fourth column of the image, so it is 5
    assert torch.equal(one, input_rows(layer, x)[::5])


def test_few_rows_are_all_taken():
    x = torch.randn(2, 7, 4)
    assert torch.equal(torch.cat([r for (r,) in sampled_rows(nn.Linear(4, 1), (x,), 8192)]), x.reshape(-1, 1, 4))


def test_an_empty_input_has_no_rows():
    assert list(sampled_rows(nn.Linear(4, 1), (torch.zeros(0, 4),), 10)) == []


class PadsItself(nn.Conv2d):
    """Pads in its forward, more to the right and to the bottom, as TensorFlow does."""

    def forward(self, x):
        return torch.nn.functional.conv2d(
            torch.nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, self.padding, 1, self.groups
        )


@pytest.mark.parametrize("padding", [0, 1])
def test_what_a_layer_computes_counts_and_not_its_class(padding):
    torch.manual_seed(0)
    conv, x = PadsItself(4, 6, 3, stride=2, padding=padding, groups=2), torch.randn(2, 4, 6, 8)
    rows, y = input_rows(conv, x), conv(x)
    got = torch.einsum("ngd,grd->ngr", rows, to_matrix(conv.weight).view(2, 3, -1)).reshape(2, *y.shape[2:], 6)
    assert torch.allclose(got.permute(0, 3, 1, 2) + conv.bias.view(1, -1, 1, 1), y, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_sampled_rows_are_every_so_many_of_all(groups):
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups)
    x = torch.randn(5, 4, 9, 7)
    whole = input_rows(layer, x)
    found = torch.cat([rows for (rows,) in sampled_rows(layer, (x,), 30)])
    strides = [s for s in range(1, len(whole)) if torch.equal(found, whole[::s])]
    assert len(strides) == 1 and strides[0] > 1


WEIGHED = [
    (nn.Linear(4, 3), (2, 5, 4)),
    (nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 4)),
    (nn.Conv2d(4, 4, 3, stride=2, groups=2), (2, 4, 7, 6)),
    (nn.Conv1d(2, 3, 3, padding="same"), (3, 2, 6)),
]


@pytest.mark.parametrize("chunk_bytes", [1, 10**9])
@pytest.mark.parametrize(("layer", "shape"), WEIGHED, ids=lambda v: str(v) if isinstance(v, nn.Module) else "")
def test_rows_come_as_often_as_they_weigh(layer, shape, chunk_bytes, monkeypatch):
    monkeypatch.setattr(inputs_room, "_CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    every = input_rows(layer, x)
    often = torch.randint(0, 4, (len(every),), generator=generator)
    parts = list(sampled_rows(layer, (x, 2 * x), len(every), often.float()))
    assert torch.equal(torch.cat([a for a, _ in parts]), every.repeat_interleave(often, 0))
    assert torch.equal(torch.cat([b for _, b in parts]), 2 * every.repeat_interleave(often, 0))
    # fewer rows, in the same proportions
    some = torch.cat([a for (a,) in sampled_rows(layer, (x,), len(every) // 2, often.float())])
    assert len(some) == round(len(every) // 2 * float(often.float().mean()))


def test_weights_of_another_number_of_rows_are_left_out():
    layer, x = nn.Linear(4, 1), torch.randn(6, 4)
    found = torch.cat([rows for (rows,) in sampled_rows(layer, (x,), 6, torch.ones(5))])
    assert torch.equal(found, x[:, None])
    assert list(sampled_rows(layer, (x,), 6, torch.zeros(6))) == []
