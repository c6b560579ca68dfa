"""Backward products in bytes against whole numbers, and the gate in front of them."""

import torch

from fewer.quantize import backward
from fewer.quantize.backward import backward_products, integer_products


def test_products_are_those_of_the_whole_numbers() -> None:
    torch.manual_seed(0)
    signal, x, weight = torch.randn(9, 6), torch.randn(9, 5), torch.randn(6, 5)

    def coded(t: torch.Tensor, axis: int | None, top: int) -> torch.Tensor:
        scale = (t.abs().max() if axis is None else t.abs().amax(axis, keepdim=True)) / top
        return (t / scale).round() * scale

    for bits in (4, 8):
        back, grown = integer_products(signal, x, weight, bits)
        e = coded(signal, None, 2 ** (bits - 1) - 1)
        assert torch.allclose(back, e @ coded(weight, 0, 127), atol=1e-4)
        assert torch.allclose(grown, e.T @ coded(x, 0, 127), atol=1e-4)


def test_where_it_does_not_pay_fp32_stays(monkeypatch) -> None:
    signal, x, weight = torch.randn(9, 6), torch.randn(9, 5), torch.randn(6, 5)
    for answer, exact in ((False, True), (True, False)):
        monkeypatch.setattr(backward, "pays", lambda *shape, answer=answer: answer)
        got = backward_products(signal, x, weight)
        assert torch.equal(got[0], signal @ weight) is exact and torch.allclose(got[0], signal @ weight, atol=0.2)


def test_the_gate_answers_for_any_shape() -> None:
    assert backward.pays(4, 3, 2, torch.get_num_threads()) in (True, False)
