"""Fewer pixels as an outer choice: costs, distortion, refusals, and runs that make their images smaller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewer
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.engine import deploy, offers
from fewer.engine.outer import outer_of
from fewer.engine.pixels import choose_pixels, gain_of, shrinkable
from fewer.engine.plan import choose as choose_plan
from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.kernels.pixels import fewer_pixels, pixels_of
from fewer.models.macs import model_macs

FEW = {"calibration": 12, "sensing": 4, "heldout": 4, "baselines": (), "additivity": 0, "batch": 4}


class Pooled(nn.Module):
    """A small classifier that takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1)
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Pooled().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    coarse = torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, 32, mode="bicubic", align_corners=False)


def test_costs_are_those_of_the_model_on_smaller_images(net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    settings = Settings(**FEW, measure=("energy",), pattern="unstructured", precisions=("fp32",))
    prepared = prepare(net, images, settings)
    work = Work(prepared, settings)
    sensed = sense_curves(work, store=tmp_path)
    side, sizes = shrinkable(prepared)
    assert side == 32 and sizes == [28, 24, 20, 16]
    found = choose_pixels(work, sensed, [Budget("flops", 0.4, True)], tmp_path)
    pixels = found.curves.meta["pixels"]
    assert found.plain is sensed.curves and pixels["of"] == pixels["pixels"] == 32
    assert [row["left"] for row in pixels["tried"]] == [32, 28, 24, 20, 16]
    assert [row["distortion"] for row in pixels["tried"]] == sorted(row["distortion"] for row in pixels["tried"])
    smaller = fewer_pixels(Pooled(), pixels["kept"], 32, pixels["gain"])
    dense = [0] * len(found.curves)
    assert found.curves.total("macs", dense) == pytest.approx(model_macs(smaller, prepared.calibration[:1]))
    assert found.curves.total("size", dense) == sensed.curves.dense("size")
    assert found.curves.total("energy", dense) < sensed.curves.dense("energy")
    # where nothing is won by smaller images, nothing is changed
    assert choose_pixels(work, sensed, [Budget("weights", 0.5, True)], tmp_path) is sensed


@pytest.fixture
def smaller_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished models that make their images smaller are the better ones; of this small network they are not."""
    monkeypatch.setattr(offers, "_repaired", lambda _work, _sensed, one: float("pixels" not in outer_of(one[1])))


def test_finished_models_decide_between_fewer_pixels_and_all(
    net: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A repair makes up for much of a cut and for nothing of a smaller image."""
    judged: dict[str, float] = {}
    repaired = offers._repaired

    def watched(work: Work, sensed: object, one: tuple) -> float:
        found = repaired(work, sensed, one)  # type: ignore[arg-type]
        judged["pixels" if "pixels" in outer_of(one[1]) else "all"] = found
        return found

    monkeypatch.setattr(offers, "_repaired", watched)
    put_together = offers.Assembly.distortion

    def harsh(self: offers.Assembly, *args: object) -> float:
        """A cut that no repair in order follows looks far worse than it will be."""
        return put_together(self, *args) + (0.0 if "pixels" in outer_of(self.curves) else 9.0)  # type: ignore[arg-type]

    monkeypatch.setattr(offers.Assembly, "distortion", harsh)
    few = {**FEW, "calibration": 16, "heldout": 5}
    small = fewer.compress(net, images, "flops=0.3x", precisions=("fp32",), allocator="dp", **few)
    assert judged["all"] < judged["pixels"]
    assert pixels_of(small.model) is None
    monkeypatch.setattr(offers, "_repaired", lambda _work, _sensed, one: float("pixels" not in outer_of(one[1])))
    taken = fewer.compress(net, images, "flops=0.3x", precisions=("fp32",), allocator="dp", **few)
    assert pixels_of(taken.model) is not None


def test_a_run_makes_its_images_smaller_and_its_folder_gives_the_same_model(
    net: nn.Module, images: Tensor, tmp_path: Path, smaller_is_better: None
) -> None:
    run = fewer.compress(net, images, "flops=0.3x", pixels="on", precisions=("fp32",), out=tmp_path / "run", **FEW)
    report = run.report
    assert report.verdict.met and pixels_of(run.model) is not None
    told = next(row for row in report.verdict.quality if row.name == "pixels of the longer side")
    assert told.value < told.dense == 32
    assert any(row.label == "fewer, all pixels" for row in report.baselines)
    again = fewer.load(tmp_path / "run", Pooled)
    assert pixels_of(again) == pixels_of(run.model) and pixels_of(again)[2] != 1
    other = torch.rand(2, 3, 48, 32)  # of another shape: made smaller by the same factor
    with torch.no_grad():
        torch.testing.assert_close(again(images[:4]), run.model(images[:4]))
        assert again(other).shape == (2, 5)
    exported = fewer.export(tmp_path / "run", "onnx", out=tmp_path / "net.onnx", architecture=Pooled)
    assert exported is not None
    more = fewer.recover(tmp_path / "run", time=None, steps=2, images=images, model=net, out=tmp_path / "more")
    assert pixels_of(more.model) == pixels_of(run.model)


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (Mapped, {}, "answer of the same shape"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(64, 3)), {}, "answer of the same shape"),
        (lambda: fewer_pixels(Pooled(), 3, 4), {}, "smaller already"),
        (Pooled, {"tokens": True}, "do not go together"),
        (Pooled, {"schedule": "iterative"}, "do not go together"),
    ],
)
def test_what_cannot_have_fewer_pixels_is_told(make, options, reason: str, images: Tensor) -> None:
    torch.manual_seed(0)
    with pytest.raises(FewerError, match=reason):
        fewer.compress(make().eval(), images, "flops=0.5x", pixels="on", **FEW, **options)


def test_vectors_have_no_pixels() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    with pytest.raises(FewerError, match="one image tensor"):
        fewer.compress(net, torch.randn(24, 8), "flops=0.5x", pixels="on", **FEW)


def test_smaller_images_are_offered_by_themselves_where_they_save_work(
    net: nn.Module, images: Tensor, smaller_is_better: None
) -> None:
    def taken(budget: str, model: nn.Module = net, **more: object) -> object:
        run = fewer.compress(model, images, budget, **(FEW | {"precisions": ("fp32",)} | more))
        return pixels_of(run.model)

    assert taken("flops=0.3x") is not None
    assert taken("flops=0.3x", pixels="off") is None
    assert taken("weights=50%") is None  # an image has no weights
    torch.manual_seed(0)
    assert taken("flops=0.8x", Mapped().eval()) is None  # it gives a map


def test_one_number_makes_up_for_how_loudly_a_network_answers() -> None:
    wanted = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = 0.6 * wanted + 0.1 * noise
    gain = gain_of(wanted, found)
    errors = [float((g * found - wanted).square().sum()) for g in (gain - 0.01, gain, gain + 0.01)]
    assert errors[1] == min(errors) and 1.4 < gain < 1.9
    assert gain_of(wanted.softmax(1), found.softmax(1)) == 1  # probabilities add up
    assert gain_of(wanted, -wanted) == 0.25 and gain_of(None, None) == 1 and gain_of(wanted, found[:3]) == 1


@pytest.mark.parametrize("kind", ["sigmoid", "log_softmax", "unit"])
def test_answers_that_mean_something_by_their_size_are_not_made_louder(kind: str) -> None:
    raw = torch.randn(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    last = {"sigmoid": torch.sigmoid, "log_softmax": lambda x: x.log_softmax(1), "unit": F.normalize}[kind]
    assert gain_of(last(raw), last(0.6 * raw + 0.1)) == 1


def test_an_accelerator_and_maps_leave_images_as_they_are(net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    few = FEW | {"precisions": ("fp32",), "pattern": "columns"}
    run = fewer.compress(net, images, "energy=0.95x", accelerator="edge-npu", **few)
    assert pixels_of(run.model) is None
    with pytest.raises(FewerError, match="not priced for an accelerator"):
        fewer.compress(net, images, "energy=0.95x", accelerator="edge-npu", pixels="on", **few)

    class Resized(Mapped):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(super().forward(x), (16, 16))

    torch.manual_seed(0)
    run = fewer.compress(Resized().eval(), images, "flops=0.5x", **FEW)
    assert pixels_of(run.model) is None
    with pytest.raises(FewerError, match="fewer compress chooses it"):
        fewer.sense(net, images, out=tmp_path / "curves", pixels="on")


def test_where_a_size_is_too_slow_a_smaller_one_is_tried(
    net: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def within(_work, curves: CurveSet, budgets, choose, start=None):
        seen.append(outer_of(curves)["pixels"]["kept"])
        return choose(budgets), list(budgets), [{"predicted": 1.0, "measured": 2.0 if seen[-1] > 20 else 0.5}]

    monkeypatch.setattr(offers, "plan_within", within)
    settings = Settings(**FEW, pattern="unstructured", precisions=("fp32",))
    work = Work(prepare(net, images, settings), settings)
    plain = sense_curves(work).curves
    sizes = [replace(plain, meta={**plain.meta, "pixels": {"kept": size, "of": 32}}) for size in (28, 24, 20, 16)]
    plan = choose_plan(plain, [Budget("flops", 0.5, True)], "dp")
    found = offers._in_time(work, [Budget("flops", 0.5, True)], [(plan, c, {}) for c in sizes], 1.0, plain)
    assert [(c.meta["pixels"]["kept"], row["late"]) for _, c, row in found] == [
        (28, True), (24, True), (20, False), (16, False),
    ]  # fmt: skip
    assert seen == [28, 24, 20, 16]


def test_a_plan_of_pixels_alone_is_timed(net: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "trial_ms", lambda *_: 7.0)
    monkeypatch.setattr(deploy, "measured_here", lambda _curves: True)
    settings = Settings(**FEW, pattern="unstructured", precisions=("fp32",))
    work = Work(prepare(net, images, settings), settings)
    plain = sense_curves(work).curves
    timed = CurveSet(
        tuple(replace(c, cost={**c.cost, "latency": c.cost["flops"]}) for c in plain.curves),
        meta={**plain.meta, "pixels": {"kept": 16, "of": 32}},
    )
    budget = [Budget("latency", 1.0, True)]  # nothing has to be cut
    tried = deploy.plan_within(work, timed, budget, lambda b: choose_plan(timed, b, "dp"))[2]
    assert [t["measured"] for t in tried] == [7.0]
