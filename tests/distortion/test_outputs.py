"""Relative change of outputs of any make."""

from dataclasses import dataclass

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.distortion.outputs import Reference, output_tensors, reduction


def test_scales_make_tensors_count_alike():
    g = torch.Generator().manual_seed(0)
    small, large = torch.randn(6, 3, generator=g), 1e4 * torch.randn(6, 2, 2, generator=g)
    reference = Reference([{"a": small[:4], "b": large[:4]}, {"a": small[4:], "b": large[4:]}])
    assert reference.samples == 6
    for index, part in enumerate([slice(0, 4), slice(4, 6)]):
        got = reference.change(index, {"a": small[part] * 1.5, "b": large[part]})
        wanted = 0.25 * small[part].double().square().sum(1) / small.double().square().sum() * 6 / 2
        torch.testing.assert_close(got, wanted)
    zeroed = [reference.change(i, {"a": 0 * small[s], "b": 0 * large[s]}) for i, s in [(0, slice(4)), (1, slice(4, 6))]]
    assert float(torch.cat(zeroed).mean()) == pytest.approx(1.0)  # everything gone is a distortion of 1


def test_zero_change_is_zero_and_parts_keep_the_whole_scale():
    outputs = [torch.randn(n, 3) for n in (4, 2, 3)]
    reference, other = Reference(outputs), [o + 1 for o in outputs]
    assert not any(bool(reference.change(i, o).any()) for i, o in enumerate(outputs))
    part = reference.part(1, 3)
    assert part.samples == 5
    assert torch.equal(part.change(0, other[1]), reference.change(1, other[1]))
    assert torch.equal(part.change(1, other[2]), reference.change(2, other[2]))


def test_first_dimensions_that_are_a_multiple_of_the_samples_are_split():
    tokens = torch.randn(6, 4)  # 2 samples of 3 tokens
    reference = Reference([(torch.randn(2, 1), tokens)])
    changed = tokens.clone()
    changed[3:] += 1
    change = reference.change(0, (reference.tensors[0][0], changed))
    assert change[0] == 0 and change[1] > 0


def test_one_value_for_a_batch_is_shared_by_its_samples():
    reference = Reference([(torch.zeros(4, 2), torch.tensor(2.0)), (torch.zeros(2, 2), torch.tensor(4.0))])
    total = sum(float(reference.change(i, (torch.zeros(n, 2), torch.tensor(0.0))).sum()) for i, n in [(0, 4), (1, 2)])
    # all of the second tensor gone: as if it had been given per sample, its half of a distortion of 1
    assert total / reference.samples == pytest.approx(0.5)


def test_objects_with_attributes_count_as_mappings_and_integers_are_left_out():
    @dataclass
    class Output:
        logits: torch.Tensor
        index: torch.Tensor

    assert len(output_tensors(Output(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)))) == 1
    with pytest.raises(FewerError, match="no floating-point"):
        output_tensors({"a": torch.zeros(2, dtype=torch.long), "b": "text"})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_dense_output_is_refused(bad):
    with pytest.raises(FewerError, match="NaN or infinity"):
        Reference([torch.tensor([[1.0, bad]])])


def test_an_output_of_zeros_has_a_finite_change():
    assert float(Reference([torch.zeros(2, 3)]).change(0, torch.ones(2, 3))[0]) == 3.0


def test_reductions():
    distortion = torch.tensor([[4.0, 1.0, 2.0, 3.0, 10.0], [0.0, 0.0, 0.0, 0.0, 5.0]])
    assert reduction("mean")(distortion).tolist() == [4.0, 1.0]
    assert reduction("max")(distortion).tolist() == [10.0, 5.0]
    assert reduction("cvar:0.4")(distortion).tolist() == [7.0, 2.5]
    assert torch.equal(reduction("cvar:1")(distortion), reduction("mean")(distortion))
    assert torch.equal(reduction("cvar")(distortion), reduction("max")(distortion))  # a tenth of five is the worst one
    for bad in ("cvar:0", "cvar:2", "cvar:x", "median", "mean:0.1", "max:1"):
        with pytest.raises(FewerError):
            reduction(bad)
