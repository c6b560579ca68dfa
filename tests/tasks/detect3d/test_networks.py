"""Names and shapes of published checkpoints, and what the networks put out."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.networks import NETWORKS, build_network, published_state, small_config
from fewer.tasks.detect3d.networks.build import load_published
from fewer.tasks.detect3d.networks.cells import PillarVFE, cells_of
from fewer.tasks.detect3d.networks.config import ANCHORS, NUSCENES, published_config
from fewer.tasks.detect3d.networks.neighbours import ball_queries, ball_query, farthest_points
from fewer.tasks.detect3d.networks.published import config_of_state


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    rows = {f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")}
    return {**rows, f"{name}.num_batches_tracked": ()}


def flat(inputs: int, layers, filters, ups, outs, first: str = "backbone_2d") -> dict[str, tuple[int, ...]]:
    rows = {}
    for i, (count, width, factor, out) in enumerate(zip(layers, filters, ups, outs, strict=True)):
        rows[f"{first}.blocks.{i}.1.weight"] = (width, inputs, 3, 3)
        rows |= norm(f"{first}.blocks.{i}.2", width)
        for k in range(count):
            rows[f"{first}.blocks.{i}.{4 + 3 * k}.weight"] = (width, width, 3, 3)
            rows |= norm(f"{first}.blocks.{i}.{5 + 3 * k}", width)
        shape = (width, out, factor, factor) if factor >= 1 else (out, width, round(1 / factor), round(1 / factor))
        rows[f"{first}.deblocks.{i}.0.weight"] = shape
        rows |= norm(f"{first}.deblocks.{i}.1", out)
        inputs = width
    return rows


def anchors(inputs: int) -> dict[str, tuple[int, ...]]:
    rows = {}
    for name, count in (("conv_cls", 18), ("conv_box", 42), ("conv_dir_cls", 12)):
        rows |= {f"dense_head.{name}.weight": (count, inputs, 1, 1), f"dense_head.{name}.bias": (count,)}
    return rows


def plain_volume() -> dict[str, tuple[int, ...]]:
    rows = {"backbone_3d.conv_input.0.weight": (16, 3, 3, 3, 4), **norm("backbone_3d.conv_input.1", 16)}
    rows |= {"backbone_3d.conv1.0.0.weight": (16, 3, 3, 3, 16), **norm("backbone_3d.conv1.0.1", 16)}
    for stage, (inputs, outputs) in {2: (16, 32), 3: (32, 64), 4: (64, 64)}.items():
        for block in range(3):
            rows[f"backbone_3d.conv{stage}.{block}.0.weight"] = (outputs, 3, 3, 3, outputs if block else inputs)
            rows |= norm(f"backbone_3d.conv{stage}.{block}.1", outputs)
    return rows | {"backbone_3d.conv_out.0.weight": (128, 3, 1, 1, 64), **norm("backbone_3d.conv_out.1", 128)}


def residual_volume() -> dict[str, tuple[int, ...]]:
    rows = {"backbone_3d.conv_input.0.weight": (16, 3, 3, 3, 5), **norm("backbone_3d.conv_input.1", 16)}
    for stage, (inputs, outputs) in {1: (16, 16), 2: (16, 32), 3: (32, 64), 4: (64, 128)}.items():
        start = 0 if stage == 1 else 1
        if start:
            rows[f"backbone_3d.conv{stage}.0.0.weight"] = (outputs, 3, 3, 3, inputs)
            rows |= norm(f"backbone_3d.conv{stage}.0.1", outputs)
        for block in (start, start + 1):
            for k in (1, 2):
                name = f"backbone_3d.conv{stage}.{block}"
                rows |= {f"{name}.conv{k}.weight": (outputs, 3, 3, 3, outputs), f"{name}.conv{k}.bias": (outputs,)}
                rows |= norm(f"{name}.bn{k}", outputs)
    return rows | {"backbone_3d.conv_out.0.weight": (128, 3, 1, 1, 128), **norm("backbone_3d.conv_out.1", 128)}


def centres(inputs: int, groups=(1, 2, 2, 1, 2, 2)) -> dict[str, tuple[int, ...]]:
    rows = {"dense_head.shared_conv.0.weight": (64, inputs, 3, 3), "dense_head.shared_conv.0.bias": (64,)}
    rows |= norm("dense_head.shared_conv.1", 64)
    for number, classes in enumerate(groups):
        for name, out in {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2, "hm": classes}.items():
            start = f"dense_head.heads_list.{number}.{name}"
            rows |= {f"{start}.0.0.weight": (64, 64, 3, 3), f"{start}.0.0.bias": (64,), **norm(f"{start}.0.1", 64)}
            rows |= {f"{start}.1.weight": (out, 64, 3, 3), f"{start}.1.bias": (out,)}
    return rows


def pillars(*inputs: int) -> dict[str, tuple[int, ...]]:
    """Layers with so many inputs; all but the last one give half of the next one's."""
    rows = {}
    for i, count in enumerate(inputs):
        width = 64 if i == len(inputs) - 1 else 32
        rows |= {f"vfe.pfn_layers.{i}.linear.weight": (width, count), **norm(f"vfe.pfn_layers.{i}.norm", width)}
    return rows


def second_stage() -> dict[str, tuple[int, ...]]:
    rows = {}

    def ball(name: str, inputs: int, width: int) -> None:
        for j in range(2):
            for at, ins in ((0, inputs + 3), (3, width)):
                rows[f"{name}.mlps.{j}.{at}.weight"] = (width, ins, 1, 1)
                rows.update(norm(f"{name}.mlps.{j}.{at + 1}", width))

    for i, width in enumerate((16, 32, 64, 64)):
        ball(f"pfe.SA_layers.{i}", width, width)
    ball("pfe.SA_rawpoints", 1, 16)
    rows["pfe.vsa_point_feature_fusion.0.weight"] = (128, 640)
    rows.update(norm("pfe.vsa_point_feature_fusion.1", 128))
    for at, ins in ((0, 640), (3, 256)):
        rows[f"point_head.cls_layers.{at}.weight"] = (256, ins)
        rows.update(norm(f"point_head.cls_layers.{at + 1}", 256))
    rows |= {"point_head.cls_layers.6.weight": (1, 256), "point_head.cls_layers.6.bias": (1,)}
    ball("roi_head.roi_grid_pool_layer", 128, 64)
    for name in ("shared_fc_layer", "cls_layers", "reg_layers"):
        for at, ins in ((0, 27648 if name == "shared_fc_layer" else 256), (4, 256)):
            rows[f"roi_head.{name}.{at}.weight"] = (256, ins, 1)
            rows.update(norm(f"roi_head.{name}.{at + 1}", 256))
    for name, out in (("cls_layers", 1), ("reg_layers", 7)):
        rows |= {f"roi_head.{name}.7.weight": (out, 256, 1), f"roi_head.{name}.7.bias": (out,)}
    return rows


SIX = ((3, 5, 5), (64, 128, 256))
TWO = ((5, 5), (128, 256), (1, 2), (256, 256))
EXPECTED = {
    "pointpillars": lambda: pillars(10) | flat(64, *SIX, (1, 2, 4), (128,) * 3) | anchors(384),
    "second": lambda: plain_volume() | flat(256, *TWO) | anchors(512),
    "centerpoint-pillar": lambda: pillars(11, 64) | flat(64, *SIX, (0.5, 1, 2), (128,) * 3) | centres(384),
    "centerpoint": lambda: residual_volume() | flat(256, *TWO) | centres(512),
    "pv-rcnn": lambda: plain_volume() | flat(256, *TWO) | anchors(512) | second_stage(),
}


def wanted_state(shapes) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_names_and_shapes_of_published_checkpoints(name):
    wanted = {"global_step": (1,), **EXPECTED[name]()}
    classes = NUSCENES if name.startswith("centerpoint") else tuple(ANCHORS)
    net = build_network(published_config(name, classes))
    assert config_of_state(wanted_state(wanted)) == net.config
    got = {key: tuple(value.shape) for key, value in published_state(net).items()}
    assert got == wanted
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.rand(s, generator=generator) if s else torch.tensor(3) for k, s in wanted.items()}
    state["global_step"] = torch.tensor([7])
    load_published(net, state)
    assert all(torch.equal(value, state[key]) for key, value in published_state(net).items())


def test_layout_of_spconv_1_and_wrong_checkpoints():
    net = build_network(small_config("second"))
    state = published_state(net)
    old = {k: v.permute(1, 2, 3, 4, 0).contiguous() if v.ndim == 5 else v for k, v in state.items()}
    load_published(net, old)
    assert all(torch.equal(value, state[key]) for key, value in published_state(net).items())
    with pytest.raises(FewerError, match="another grid"):
        load_published(net, {**state, "dense_head.conv_cls.weight": torch.zeros(6, 64, 1, 1)})
    with pytest.raises(FewerError, match="lacks"):
        load_published(net, {k: v for k, v in state.items() if k != "dense_head.conv_cls.bias"})


def tiny(name: str):
    """A small network on a quarter of its grid."""
    cut = {"reach": (0, -11.52, -3, 23.04, 11.52, 1), "keypoints": 64, "proposals": 12}
    return build_network(small_config(name).model_copy(update=cut))


def scans(count: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.rand(300, 4, generator=generator) * torch.tensor([20, 20, 3.5, 1]) + torch.tensor([1, -10, -2.8, 0])
        for _ in range(count)
    )


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_batch_is_its_scans_one_by_one(name):
    torch.manual_seed(0)
    net = tiny(name)
    with torch.no_grad():
        both, single = net(*scans()), net(scans()[1])
    for key in both:
        assert torch.allclose(both[key][1].float(), single[key][0].float(), atol=1e-4), key
    found = net.detect(*scans(), score=0.005)
    assert len(found) == 2 and found[0].boxes.shape[1] == 7
    assert (found[0].scores[:-1] >= found[0].scores[1:]).all()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_losses_have_gradients_and_empty_scans_work(name):
    torch.manual_seed(0)
    net = tiny(name).train()
    boxes = [torch.tensor([[15.0, 3, -1, 3.9, 1.6, 1.5, 0.3], [20, -6, -1, 0.8, 0.6, 1.7, 0.0]]), torch.zeros(0, 7)]
    labels = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.long)]
    loss = net.loss(scans(), boxes, labels)
    loss.backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None]
    assert torch.isfinite(loss) and missing == []
    net.eval()
    far = torch.tensor([[500.0, 0, 0, 0]])
    assert all(torch.isfinite(v.float()).all() for v in net(far).values())
    with pytest.raises(FewerError, match="rows of 4"):
        net(torch.zeros(5, 3))
    lone = torch.tensor([[15.0, 3, -1, 0.5]])
    for scan in (lone, far):  # a batch of one point, or of none, has no statistics for a norm
        assert torch.isfinite(net.train().loss((scan,), boxes[:1], labels[:1]))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_mixed_precision_trains_and_looks(name):
    torch.manual_seed(0)
    net = tiny(name)
    boxes, labels = [torch.tensor([[15.0, 3, -1, 3.9, 1.6, 1.5, 0.3]])] * 2, [torch.tensor([0])] * 2
    with torch.no_grad():
        exact = net(*scans())
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(*scans())
        loss = net.train().loss(scans(), boxes, labels)
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    first = next(iter(exact))
    assert torch.allclose(rough[first].float(), exact[first], atol=0.05 * float(exact[first].abs().max()))


def test_targets_decode_to_the_objects():
    for name in ("pointpillars", "centerpoint-pillar"):
        net = tiny(name)
        boxes = torch.tensor([[15.2, 3.1, -0.9, 4.2, 1.7, 1.5, 0.4], [20.4, -8.2, -1.0, 3.8, 1.6, 1.5, -2.2]])
        labels = torch.zeros(2, dtype=torch.long)
        raw = {k: v.detach() for k, v in net(*scans(1)).items()}
        raw = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in raw.items()}
        leaves = [v for v in raw.values() if v.requires_grad]
        optimiser = torch.optim.Adam(leaves, lr=0.05)
        for _ in range(400):
            optimiser.zero_grad()
            net.dense_head.loss(raw, [boxes], [labels]).backward()
            optimiser.step()
        found = net.objects(raw, score=0.5)[0]
        assert len(found) == 2 and set(found.classes) == {"Car"}
        order = found.boxes[:, 0].argsort()
        assert abs(found.boxes[order] - boxes.double().numpy()).max() < 0.05


def test_pillars_equal_the_padded_computation():
    config = small_config("pointpillars").model_copy(update={"most_points": 6})
    torch.manual_seed(0)
    vfe = PillarVFE(config).eval()
    layer = vfe.pfn_layers[0]
    layer.norm.running_mean.normal_()
    layer.norm.bias.data.normal_()
    cells = cells_of(scans(1), config)
    got = vfe(cells)
    for number in (0, 5, 17):
        own = cells.points[cells.cell == number]
        mean = own[:, :3].mean(0)
        low, size = torch.tensor(config.reach[:3]), torch.tensor(config.voxel)
        centre = (cells.where[number, [3, 2, 1]] + 0.5) * size + low
        rows = torch.cat([own, own[:, :3] - mean, own[:, :3] - centre], 1)
        padded = torch.cat([rows, torch.zeros(config.most_points - len(rows), rows.shape[1])])
        assert torch.allclose(got[number], layer(padded).amax(0), atol=1e-5)


def test_dynamic_pillars_equal_the_computation_pillar_by_pillar():
    config = small_config("centerpoint-pillar").model_copy(
        update={"wide": (16,), "padded": False, "most_points": 10**6}
    )
    torch.manual_seed(0)
    vfe = PillarVFE(config).eval()
    first, last = vfe.pfn_layers
    assert first.linear.out_features == 8 and last.linear.in_features == 16
    for layer in (first, last):
        layer.norm.running_mean.normal_()
        layer.norm.bias.data.normal_()
    cells = cells_of(scans(1), config)
    got = vfe(cells)
    for number in (0, 3, 11):
        own = cells.points[cells.cell == number]
        low, size = torch.tensor(config.reach[:3]), torch.tensor(config.voxel)
        centre = (cells.where[number, [3, 2, 1]] + 0.5) * size + low
        rows = torch.cat([own, own[:, :3] - own[:, :3].mean(0), own[:, :3] - centre], 1)
        values = first(rows)
        rows = torch.cat([values, values.amax(0).expand(len(rows), -1)], 1)
        assert torch.allclose(got[number], last(rows).amax(0), atol=1e-5)


def test_neighbours_against_loops():
    points = torch.rand(60, 3, generator=torch.Generator().manual_seed(1))
    near, empty = ball_query(points[:5] + 0.01, points, 0.2, 4)
    for row, lone, centre in zip(near, empty, points[:5] + 0.01, strict=True):
        inside = [i for i in range(60) if float((points[i] - centre).norm()) < 0.2][:4]
        assert not lone and row.tolist() == inside + inside[:1] * (4 - len(inside))
    chosen = farthest_points(points, 6).tolist()
    for k in range(1, 6):
        apart = torch.stack([(points - points[i]).norm(dim=1) for i in chosen[:k]]).amin(0)
        assert chosen[k] == int(apart.argmax())
    assert len(farthest_points(points[:2], 5)) == 5


def test_neighbours_in_columns_are_those_of_all_pairs():
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(400, 3, generator=generator) * torch.tensor([20.0, 9.0, 1.0])
        centres = torch.cat([points[:60] + 0.3, torch.randn(40, 3, generator=generator) * 60])
        centres[-1], centres[-2], centres[-3] = float("nan"), float("inf"), 1e30
        found = ball_queries(centres, points, (0.9, 2.5), (3, 16))
        for (rows, empty), radius, count in zip(found, (0.9, 2.5), (3, 16), strict=True):
            for row, lone, centre in zip(rows, empty, centres, strict=True):
                near = (points - centre).square().sum(1) < radius * radius
                inside = near.nonzero()[:count, 0].tolist()
                assert bool(lone) == (not inside)
                assert row.tolist() == inside + (inside[:1] or [0]) * (count - len(inside))
    for none in (torch.zeros(0, 3), torch.zeros(5, 3)):
        rows, empty = ball_query(torch.zeros(5, 3)[: len(none) or 5], torch.zeros(0, 3), 1.0, 4)
        assert rows.shape[1] == 4 and bool(empty.all())


def test_cells_beside_a_centre_learn_its_box():
    config = small_config("centerpoint", ("Car",))
    assert config.around == 1
    head = build_network(config).dense_head
    like = torch.zeros(1, 1, *reversed(config.head_grid))
    x0, y0, dx, dy = head._cells()
    boxes = torch.tensor([[x0 + 10.2 * dx, y0 + 10.7 * dy, -1.0, 4, 2, 1.5, 0.3]])
    boxes = torch.cat([boxes, boxes + torch.tensor([[2 * dx, 0, 0, 0, 0, 0, 0]])])
    _, wanted, _, cell = head._targets(like, [boxes], [torch.zeros(2, dtype=torch.long)], [0])
    wide = config.head_grid[0]
    assert len(wanted) == len(set(cell.tolist())) == 15  # two blocks of nine that share a column
    place = torch.stack([(cell % wide + wanted[:, 0]) * dx + x0, (cell // wide + wanted[:, 1]) * dy + y0], 1)
    nearer = (torch.cdist(place, boxes[:, :2]) < 1e-3).int().argmax(1)
    assert torch.allclose(place, boxes[nearer, :2], atol=1e-4)
    assert all(n == (int(c) % wide > 11) for n, c in zip(nearer.tolist(), cell, strict=True) if int(c) % wide != 11)
    alone = config.model_copy(update={"around": 0})
    assert len(type(head)(alone, 64)._targets(like, [boxes], [torch.zeros(2, dtype=torch.long)], [0])[1]) == 2
