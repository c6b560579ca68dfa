"""The device profile: nothing is timed twice, nothing is lost, and another machine's profile says so."""

from __future__ import annotations

import json

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost import profile as module
from fewer.cost.profile import CHECK, KNOTS, DeviceProfile, stored_share, way_of
from fewer.cost.stopwatch import Timing
from fewer.cost.subjects import random_mask
from fewer.kernels.format import pack


def ways(*names):
    return {name: lambda: lambda: None for name in names}


def series(profile, way="native int8", pattern="block:16x4", layer="Linear 160x40 on 8x40"):
    profile.measure(layer, ways(*(way_of(way, pattern, s) for s in (*KNOTS, CHECK))))


def test_nothing_is_timed_twice_also_by_another_process(device):
    first = DeviceProfile.here()
    assert first.measure("layer", ways("native fp32", "native int8")) == 2
    again = DeviceProfile.here()
    assert again.measure("layer", ways("native fp32", "native int8", "native bf16")) == 1
    assert device.timed == 1
    assert again.ms("layer", "native int8") == first.ms("layer", "native int8") == pytest.approx(0.35 * 2.0)
    assert DeviceProfile.here(again=True).points == {}


def test_what_was_timed_before_an_interrupt_is_kept(device, monkeypatch):
    profile = DeviceProfile.here()
    profile.measure("a", ways("native fp32"))
    with pytest.raises(KeyboardInterrupt):

        def stop():
            raise KeyboardInterrupt

        profile.measure("b", {"native fp32": stop})
    assert DeviceProfile.here().has("a", "native fp32") and not DeviceProfile.here().has("b", "native fp32")


SHAPE, LAYER = (160, 40), "Linear 160x40 on 8x40"


def test_times_follow_a_line_over_the_stored_blocks(device):
    profile = DeviceProfile.here()
    series(profile, layer=LAYER)
    # the made-up times are linear in the sparsity, and 100 tiles can have any of these sparsities
    for sparsity in (0.1, 0.5, 0.6, 0.9, 0.95, 1.0):
        found = profile.at(LAYER, "native int8", "block:16x4", sparsity, SHAPE)
        assert found == pytest.approx(2.0 * (0.1 + 0.25 * (1 - sparsity)))
    assert profile.quality().error == pytest.approx(0.0, abs=1e-9)
    key = f"{LAYER} | native int8 block:16x4@{CHECK}"
    true = profile.points[key].ratio
    profile.points[key] = Timing(2 * true, 0.01, 5)
    assert profile.quality().worst == pytest.approx(0.5)  # the line through the others is half of it


def test_one_timing_that_is_too_good_hardly_moves_the_line(device):
    profile = DeviceProfile.here()
    series(profile, layer=LAYER)
    before = profile.at(LAYER, "native int8", "block:16x4", 0.8, SHAPE)
    key = f"{LAYER} | native int8 block:16x4@0.8"
    profile.points[key] = Timing(0.7 * profile.points[key].ratio, 0.01, 5)
    assert profile.at(LAYER, "native int8", "block:16x4", 0.8, SHAPE) > 0.85 * before


def test_tiles_smaller_than_a_kernels_block_save_less():
    torch.manual_seed(0)
    for pattern, precision in [("block:16x1", "int8"), ("block:16x2", "bf16"), ("block:8x4", "fp32")]:
        option = Option(pattern, 0.7)
        packed = pack(torch.randn(160, 320), random_mask((160, 320), option), precision=precision, width=None)
        expected = stored_share((160, 320), pattern, 0.7, precision)
        assert packed.density == pytest.approx(expected, abs=0.04)
    assert stored_share((16, 32), "block:16x16", 0.6, "fp32") == 0.0  # two tiles: more than half are both


def test_noisy_timings_are_counted():
    points = {"layer | a": Timing(1.0, 0.1, 5), "layer | b": Timing(1.0, 0.5, 5)}
    quality = DeviceProfile({}, points, 1.0).quality(asked_only=False)
    assert (quality.points, quality.noisy, quality.spread) == (2, 1, pytest.approx(0.3))


def test_a_profile_can_be_shipped(device, tmp_path, monkeypatch):
    profile = DeviceProfile.here()
    series(profile)
    path = profile.save(tmp_path / "laptop.json", "laptop")
    shipped = DeviceProfile.load(path)
    assert shipped.name == "laptop" and shipped.warning() is None and not shipped.can_measure
    assert shipped.points == profile.points and shipped.reference_ms == 2.0
    assert shipped.measure(LAYER, ways("native int8")) == 0
    with pytest.raises(FewerError, match="has no time for layer"):
        shipped.measure("layer", ways("native bf16"))
    monkeypatch.setattr(module, "device_facts", lambda: {**profile.facts, "cpu": "Another CPU"})
    warning = shipped.warning() or ""
    assert "another device" in warning and "not Another CPU" in warning


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema_version=9), "schema version 9"),
        (lambda d: d.pop("points"), "damaged"),
        (lambda d: d.update(points={"a": {"ratios": 1}}), "damaged"),
        (lambda d: d.update(points=[]), "damaged"),
    ],
)
def test_damaged_files_are_one_sentence(device, tmp_path, change, words):
    path = DeviceProfile.here().save(tmp_path / "p.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(FewerError, match=words):
        DeviceProfile.load(path)
    with pytest.raises(FewerError, match="does not exist"):
        DeviceProfile.load(tmp_path / "none.json")


def test_what_is_timed_again_keeps_its_lowest_time(device, monkeypatch):
    profile = DeviceProfile.here()
    runs = {"first": lambda: lambda: None}
    for ratio, missing, kept in [(3.0, "a", 3.0), (2.0, "b", 2.0), (5.0, "c", 2.0)]:
        monkeypatch.setattr(device, "time", lambda self, c, r=ratio, **_: {n: Timing(r, 0.01, 5) for n in c})
        profile.measure("net", {**runs, missing: lambda: lambda: None}, again=("first",))
        assert profile.points["net | first"].ratio == kept
    assert DeviceProfile.here().points["net | first"].ratio == 2.0
    # nothing is missing, so nothing is timed
    profile.measure("net", {**runs, "c": lambda: lambda: None}, again=("first",))
    assert profile.points["net | first"].ratio == 2.0
