"""Curves do not depend on how the work is shared out, nor on interruptions."""

import json

import pytest
import torch

from fewer.core.fingerprint import function_fingerprint
from fewer.core.ledger import Ledger
from fewer.core.progress import Silent
from fewer.distortion.outputs import Reference
from tests.support.nets import distortion, quick, sense_small, small

ESTIMATORS = [
    {"estimator": "measured"},
    {"estimator": "taylor", "probes": 3},
    {"estimator": "taylor", "probes": 3, "score": "taylor", "reduction": "max"},
    {"estimator": "measured", "score": "taylor", "compensation": "bias"},
]


def whole(**settings) -> torch.Tensor:
    return distortion(sense_small(quick(**settings)).curves)


@pytest.mark.parametrize("how", ESTIMATORS, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize(
    ("shards", "workers", "backend"), [(2, 1, "serial"), (4, 1, "serial"), (1, 2, "thread"), (3, 2, "thread")]
)
def test_curves_do_not_depend_on_shards_workers_or_threads(how, shards, workers, backend):
    wanted = whole(**how)
    got = whole(**how, shards=shards, workers=workers, backend=backend)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("backend", ["process", pytest.param("ray", marks=pytest.mark.cluster)])
def test_curves_do_not_depend_on_processes(backend, tmp_path):
    if backend == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'fewer[cluster]'")
    settings = quick(estimator="taylor", shards=2, workers=2, backend=backend)
    sensed = sense_small(settings, store=tmp_path)
    torch.testing.assert_close(distortion(sensed.curves), whole(estimator="taylor"), rtol=1e-6, atol=1e-12)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_what_is_kept_is_what_is_costed():
    for pattern in ("unstructured", "block:4x4", "2:4", "nm:*:4"):
        settings = quick(pattern=pattern)
        ledger: dict = {}
        sensed = sense_small(settings)
        for curve in sensed.curves.curves:
            assert curve.distortion[0] == 0 and list(curve.distortion) == sorted(curve.distortion)
            assert len(set(curve.cost["weights"])) == len(curve)
            assert curve.cost["flops"][0] == 2 * curve.unit.macs
        assert not ledger


def test_passes_are_counted_for_both_estimators():
    n = 7
    taylor = sense_small(quick(estimator="taylor", probes=3)).facts["passes"]
    assert taylor == n * (1 + 3)
    sensed = sense_small(quick(estimator="measured"))
    assert sensed.facts["passes"] == n * sum(len(c.options) - 1 for c in sensed.curves.curves)
    threads = sense_small(quick(estimator="taylor", probes=3, shards=2, backend="thread", workers=2))
    assert threads.facts["passes"] == n * (1 + 3)


class StopAfter(Silent):
    """Interrupts, as Ctrl-C would, when so many tasks are done."""

    def __init__(self, tasks: int) -> None:
        self.left = tasks

    def advance(self, n: float = 1, note: str = "") -> None:
        if note:
            self.left -= 1
            if self.left <= 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("backend", ["serial", "thread"])
@pytest.mark.parametrize("how", ESTIMATORS[:2], ids=["measured", "taylor"])
@pytest.mark.parametrize("cut", [0, 40])
def test_an_interrupted_run_goes_on_and_equals_an_uninterrupted_one(tmp_path, how, backend, cut):
    settings = quick(**how, shards=2, backend=backend, workers=2)
    path = tmp_path / "ledger"
    with pytest.raises(KeyboardInterrupt):
        sense_small(settings, ledger=path, progress=StopAfter(3))
    done = path.read_bytes()
    assert len(done.splitlines()) >= 3
    path.write_bytes(done[: len(done) - cut])
    resumed = sense_small(settings, ledger=path)
    assert resumed.facts["resumed"] == len(done.splitlines()) - (cut > 0)
    assert torch.equal(distortion(resumed.curves), distortion(sense_small(settings).curves))
    again = sense_small(settings, ledger=path)
    assert again.facts["resumed"] == 6 and torch.equal(distortion(again.curves), distortion(resumed.curves))


@pytest.mark.parametrize(
    "change",
    [
        {"damping": 0.1},
        {"seed": 1},
        {"sensing": 6},
        {"calibration": 11},
        {"batch": 3},
        {"pattern": "2:4"},
        {"sparsities": (0.5,)},
        {"compensation": "none"},
        {"score": "magnitude"},
        {"estimator": "measured"},
        {"probes": 2},
        {"exclude": ("head",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_start_anew(tmp_path, change):
    path = tmp_path / "ledger"
    sense_small(quick(estimator="taylor"), ledger=path)
    changed = quick(**{"estimator": "taylor", **change})
    found = sense_small(changed, ledger=path)
    assert found.facts["resumed"] == 0
    assert torch.equal(distortion(found.curves), distortion(sense_small(changed).curves))


@pytest.mark.parametrize(
    "change", [{"allocator": "lamp"}, {"backend": "thread"}, {"search": 3}, {"workers": 1}, {"reduction": "max"}]
)
def test_settings_that_do_not_matter_keep_the_work(tmp_path, change):
    path = tmp_path / "ledger"
    sense_small(quick(), ledger=path)
    assert sense_small(quick(**change), ledger=path).facts["resumed"] == 3


def _only(count):
    """The distance of the first outputs alone."""
    return lambda outputs: Reference([output[:, :count] for output in outputs])


def test_another_forward_or_distance_starts_anew(tmp_path):
    path = tmp_path / "ledger"
    for first in ({}, {"forward": lambda m, b: m(b)[:, :2]}, {"forward": lambda m, b: m(b)[:, :3]}):
        assert sense_small(quick(), ledger=path, **first).facts["resumed"] == 0
        assert sense_small(quick(), ledger=path, **first).facts["resumed"] == 3
    fingerprints = {function_fingerprint(make) for make in (Reference, _only(2), _only(3))}
    assert len(fingerprints) == 3


def test_another_model_or_other_images_start_anew(tmp_path):
    path = tmp_path / "ledger"
    sense_small(quick(), ledger=path)
    assert sense_small(quick(), small(seed=1), ledger=path).facts["resumed"] == 0
    almost = small(seed=1)
    almost.norm.running_var[0] *= 1.0001
    assert sense_small(quick(), almost, ledger=path).facts["resumed"] == 0


def test_missing_weights_of_finished_tasks_are_made_again(tmp_path):
    path, store = tmp_path / "ledger", tmp_path / "store"
    store.mkdir()
    sense_small(quick(), ledger=path)
    assert sense_small(quick(), ledger=path, store=store).facts["resumed"] == 0
    (store / "1.safetensors").unlink()
    assert sense_small(quick(), ledger=path, store=store).facts["resumed"] == 2
    assert len(list(store.iterdir())) == 3


def test_nan_in_the_ledger_names_the_unit(tmp_path):
    from fewer.core.errors import FewerError

    path = tmp_path / "ledger"
    sense_small(quick(), ledger=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["result"]["distortions"][2] = [float("nan")] * 7
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(Ledger(path, lines[0]["key"]).results) == 3
    with pytest.raises(FewerError, match=f"'{lines[1]['task'].split('[')[0]}'"):
        sense_small(quick(), ledger=path)


def test_the_mean_weighs_samples_and_not_batches():
    """Seven images in batches of 2 (the last has one) and in one batch of seven: the same measured mean."""
    a, b = (whole(estimator="measured", batch=n) for n in (2, 7))
    torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("reduction", ["max", "cvar:0.3", "mean"])
def test_reductions_order_the_distortion(reduction):
    for estimator in ("measured", "taylor"):
        reduced, mean = (whole(estimator=estimator, reduction=r) for r in (reduction, "mean"))
        if estimator == "measured":
            assert bool((reduced >= mean * (1 - 1e-9)).all())
        assert bool(torch.isfinite(reduced).all())
