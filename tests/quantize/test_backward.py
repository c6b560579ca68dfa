"""Backward products in bytes against whole numbers, and the gate in front of them."""

import pytest
import torch

from fewer.quantize import backward
from fewer.quantize.backward import backward_products, convolution_products, integer_convolution, integer_products


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(9, 6, 5), (9, 1, 5), (1, 6, 5), (9, 6, 1), (9, 1, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_products_are_those_of_the_whole_numbers(rows: int, outputs: int, inputs: int, turned: bool) -> None:
    torch.manual_seed(0)
    shapes = (rows, outputs), (rows, inputs), (outputs, inputs)
    signal, x, weight = (torch.randn(b, a).T if turned else torch.randn(a, b) for a, b in shapes)

    def coded(t: torch.Tensor, axis: int | None, top: int) -> torch.Tensor:
        scale = (t.abs().max() if axis is None else t.abs().amax(axis, keepdim=True)) / top
        return (t / scale).round() * scale

    for bits in (4, 8):
        back, grown = integer_products(signal, x, weight, bits)
        e = coded(signal, None, 2 ** (bits - 1) - 1)
        assert torch.allclose(back, e @ coded(weight, 0, 127), atol=1e-4)
        assert torch.allclose(grown, e.T @ coded(x, 0, 127), atol=1e-4)


def test_sums_of_more_terms_than_32_bits_hold_are_right() -> None:
    rows = 140_000  # of 127 * 127 each, which is more than 2**31
    _, grown = integer_products(torch.ones(rows, 1), torch.ones(rows, 2), torch.ones(1, 2))
    assert torch.allclose(grown, torch.full((1, 2), float(rows)), rtol=1e-5)
    side = torch.ones(1, 1, 400, 350)
    _, grown = integer_convolution(side, side, torch.ones(1, 1, 1, 1))
    assert torch.allclose(grown, torch.full((1, 1, 1, 1), float(rows)), rtol=1e-5)


def test_where_it_does_not_pay_fp32_stays(monkeypatch) -> None:
    signal, x, weight = torch.randn(9, 6), torch.randn(9, 5), torch.randn(6, 5)
    for answer, exact in ((False, True), (True, False)):
        monkeypatch.setattr(backward, "pays", lambda *shape, answer=answer: answer)
        got = backward_products(signal, x, weight)
        assert torch.equal(got[0], signal @ weight) is exact and torch.allclose(got[0], signal @ weight, atol=0.2)


def test_the_gate_answers_for_any_shape() -> None:
    assert backward.pays(4, 3, 2, torch.get_num_threads()) in (True, False)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "side"),
    [(3, 1, 1, 6), (3, 2, 1, 6), (3, 2, 1, 7), (1, 1, 0, 5), (1, 2, 0, 5), (3, 1, 0, 6), (2, 2, 0, 7), (5, 3, 4, 8)],
)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 4), (5, 1), (1, 4)])
def test_a_convolution_has_the_products_of_the_whole_numbers(
    size: int, stride: int, padding: int, side: int, bits: int, inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, inputs, side, side), torch.randn(outputs, inputs, size, size)
    signal = torch.randn_like(torch.conv2d(x, weight, stride=stride, padding=padding))

    def coded(t: torch.Tensor, axis: tuple[int, ...] | None, top: int) -> torch.Tensor:
        scale = (t.abs().max() if axis is None else t.abs().amax(axis, keepdim=True)) / top
        return (t / scale).round() * scale

    e = coded(signal, None, 2 ** (bits - 1) - 1)
    of_x, of_weight = integer_convolution(signal, x, weight, stride, padding, bits)
    back, grown = backward._exact_convolution(
        e, coded(x, (0, 2, 3), 127), coded(weight, (0, 2, 3), 127), stride, padding
    )
    assert torch.allclose(of_x, back, atol=1e-4) and torch.allclose(of_weight, grown, atol=1e-4)


def test_convolutions_that_integers_do_not_serve_stay_exact(monkeypatch) -> None:
    monkeypatch.setattr(backward, "pays_convolution", lambda *shapes: True)
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 1, 1)
    signal = torch.randn(2, 2, 8, 8)  # a padding wider than the kernel: parts of the signal see nothing
    exact = backward._exact_convolution(signal, x, weight, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(convolution_products(signal, x, weight, 1, 2), exact, strict=True))
    whole, signal = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4)
    got = convolution_products(signal, whole, weight)
    exact = backward._exact_convolution(signal, whole, weight)
    assert all(0 < (a - b).abs().max() < 0.5 for a, b in zip(got, exact, strict=True))
