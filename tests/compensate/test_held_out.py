"""Which rows of a layer's input belong to which part of the samples, where samples have different lengths."""

import copy

import pytest
import torch
from torch import nn

from fewer.compensate.held_out import parts_of
from fewer.compensate.sequential import HeldOut, Layered, compress_in_order
from fewer.compensate.sweep import Repair
from fewer.core.option import Option
from fewer.data.samples import ListSamples
from fewer.models.layers import find_layers
from fewer.models.matching import match
from fewer.models.sparse import Sites, SparseSequential, SubMConv3d

LOOSE = Repair("obs", "magnitude", damping=1e-4, few_rows=0.0, iterations=50)


class Points(nn.Module):
    """Takes clouds of points of any lengths; its layer sees the points of all of them in one table."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 16)

    def forward(self, *clouds):
        rows = self.layer(torch.cat(clouds))
        return torch.stack([part.mean(0) for part in rows.split([len(cloud) for cloud in clouds])])


def clouds() -> ListSamples:
    """Four clouds; the first two have nothing in common with the last two, and 2 + 6 points, then 4 + 12."""
    torch.manual_seed(0)
    found = []
    for count, side in ((2, 0), (6, 0), (4, 32), (12, 32)):
        cloud = torch.zeros(count, 64)
        cloud[:, side : side + 32] = torch.randn(count, 32)
        found.append(cloud)
    return ListSamples(found, collate=tuple)


def believed(batches) -> float:
    model, held_out = Points().eval(), HeldOut([0, 0, 1, 1])
    dense = copy.deepcopy(model)
    example = batches[0][:1]
    units = match(model, example).units
    ladder = {unit.name: [Option(), Option("unstructured", 0.5)] for unit in units}
    layered = [Layered(one, find_layers(one, units, example)) for one in (dense, model)]
    compress_in_order(*layered, ladder, batches, LOOSE, held_out=held_out)
    return held_out.believed["layer"]


def test_batches_of_one_part_hold_a_repair_against_the_others():
    whole = clouds()
    assert believed([whole[:2], whole[2:]]) < 0.05


def test_clouds_of_different_parts_in_one_batch_are_not_told_apart():
    # 24 rows are six for each of four clouds, but the clouds are not of six points
    assert believed([clouds()]) == 1.0


def test_samples_of_one_shape_are_told_apart_in_one_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4)).eval()
    x = torch.randn(4, 5, 8)
    parts = parts_of(model[0], [x], [x], 8, [[0, 1, 1, 0]])
    for part, own in zip(parts, (x[[0, 3]], x[1:3]), strict=True):
        rows = own.reshape(-1, 8)
        assert part.after.count == len(rows)
        assert torch.allclose(part.after.products[0][0], rows.T @ rows, atol=1e-4)


@pytest.mark.parametrize("counts", [(5, 3), (0, 4)])
def test_sites_of_whole_batches_are_told_apart(counts):
    torch.manual_seed(0)
    net = SparseSequential(SubMConv3d(3, 4, 3, key="shared"))
    features = []
    for count in counts:
        where = torch.tensor([[0, 0, 0, i] for i in range(count)], dtype=torch.long).reshape(-1, 4)
        sites = Sites(torch.randn(count, 3), where, (1, 1, 8), 1)
        net(sites)
        features.append(sites)
    x = [sites.features for sites in features]
    together = parts_of(net[0], x, x, 81, None)
    parts = parts_of(net[0], x, x, 81, [[0, 0], [1]])
    assert len(together) == 1 and [part.after.count for part in parts] == list(counts)
    assert torch.allclose(sum(part.after.products[0] for part in parts), together[0].after.products[0], atol=1e-5)


def test_layers_whose_rows_differ_from_sample_to_sample_make_one_part():
    layer = nn.Linear(8, 4)
    inputs = [torch.randn(6, 8), torch.randn(10, 8)]
    assert len(parts_of(layer, inputs, inputs, 8, [[0, 1], [0, 1]])) == 1


def test_more_images_bear_out_more_of_a_repair():
    """Two halves of the same source: most of the repair is kept."""
    torch.manual_seed(0)
    mixing = torch.randn(64, 64) / 8
    whole = ListSamples([torch.randn(30, 64) @ mixing for _ in range(4)], collate=tuple)
    kept = believed([whole[:2], whole[2:]])
    assert 0.5 < kept <= 1.0


def test_rows_of_a_part_keep_their_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4)).eval()
    x = torch.randn(4, 5, 8)
    often = torch.randint(0, 3, (20,)).float()
    parts = parts_of(model[0], [x], [2 * x], 8, [[0, 1, 1, 0]], places=[often])
    for part, own in zip(parts, ([0, 3], [1, 2]), strict=True):
        rows = x[own].reshape(-1, 8)
        rows = rows.repeat_interleave(often.view(4, 5)[own].flatten().long(), 0)
        assert part.before.count == len(rows)
        assert torch.allclose(part.before.products[0][0], rows.T @ rows, atol=1e-4)
        assert torch.allclose(part.cross[0][0], 2 * rows.T @ rows, atol=1e-4)
