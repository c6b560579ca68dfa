"""The device profile: nothing is timed twice, nothing is lost, and another machine's profile says so."""

from __future__ import annotations

import json

import pytest

from fewer.core.errors import FewerError
from fewer.cost import profile as module
from fewer.cost.profile import CHECK, KNOTS, DeviceProfile, way_of
from fewer.cost.stopwatch import Timing


def ways(*names):
    return {name: lambda: lambda: None for name in names}


def series(profile, way="native int8", pattern="block:16x4"):
    profile.measure("layer", ways(*(way_of(way, pattern, s) for s in (*KNOTS, CHECK))))


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


def test_times_are_interpolated_and_the_error_of_that_is_known(device):
    profile = DeviceProfile.here()
    series(profile)
    # the made-up times are linear in the sparsity, so interpolation is exact
    for sparsity in (0.1, 0.5, 0.6, 0.9, 0.95):
        found = profile.between("layer", "native int8", "block:16x4", sparsity)
        assert found == pytest.approx(2.0 * (0.1 + 0.25 * (1 - sparsity)))
    assert profile.between("layer", "native int8", "block:16x4", 1.0) == pytest.approx(2.0 * (0.1 + 0.25 * 0.05))
    assert profile.quality().error == pytest.approx(0.0, abs=1e-9)
    key = f"layer | native int8 block:16x4@{CHECK}"
    true = profile.points[key].ratio
    profile.points[key] = Timing(2 * true, 0.01, 5)
    assert profile.quality().worst == pytest.approx(0.5)


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
    assert shipped.measure("layer", ways("native int8")) == 0
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
