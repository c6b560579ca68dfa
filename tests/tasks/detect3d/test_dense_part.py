"""The part of a detector that other runtimes get: exported, timed, and what is said about it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

import fewer
from fewer.models.spec import load_model
from fewer.tasks.detect3d.dense_part import dense_part, made_up_scan
from fewer.tasks.detect3d.networks import build_network, small_config
from fewer.tasks.detect3d.networks.config import NETWORKS
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import save_detector

REACH = (0, -5.76, -3, 11.52, 5.76, 1)
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def small(network: str):
    torch.manual_seed(0)
    return build_network(small_config(network, ("Car",)).model_copy(update={"reach": REACH}))


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    save_detector(tmp_path / "run", small("pointpillars"), None)
    return tmp_path / "run"


@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_part_gives_what_the_detector_gives(network):
    net = small(network)
    scans = [made_up_scan(net.config, seed)[:400] for seed in (0, 1)]
    part = dense_part(net, scans)
    assert len(part.inputs) == 2 and len(part.shaped()) == 2 and "2-D part" in part.note
    for scan, image in zip(scans, part.inputs, strict=True):
        with torch.no_grad():
            whole, own = net(scan), part.module(image)
        assert own.keys() <= whole.keys() and all(torch.equal(own[name], whole[name]) for name in own)


def test_a_made_up_scan_lies_in_the_field():
    config = small_config("centerpoint", ("Car",))
    scan = made_up_scan(config)
    low, high = torch.tensor(config.reach[:3]), torch.tensor(config.reach[3:])
    assert bool(((scan[:, :3] >= low) & (scan[:, :3] < high)).all())


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
def test_a_detector_is_exported_as_far_as_a_file_can_hold_it(run):
    made = fewer.export(run, "onnx")
    assert made.difference is not None and made.difference < 1e-4
    assert made.lost[0].startswith("the file holds, of a detector, the dense 2-D part alone")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    part = dense_part(load_model(str(run)).model)
    found = session.run(None, {session.get_inputs()[0].name: part.inputs[0].numpy()})
    with torch.no_grad():
        expected = part.module(part.inputs[0])
    assert any(np.allclose(expected["box_preds"], one, atol=1e-4) for one in found if one.shape[1] == 14)


def test_torch_export_holds_it_too(run):
    made = fewer.export(run, "torch")
    part = dense_part(load_model(str(run)).model)
    program = torch.export.load(made.path).module()
    assert torch.allclose(program(part.inputs[0])["cls_preds"], part.module(part.inputs[0])["cls_preds"], atol=1e-5)


def test_a_bench_compares_the_part_and_says_so(run, tmp_path):
    scans = Streets(SENSORS["hdl-64"].ahead(30).thinned(8), seed=5).write(tmp_path / "kitti", 4, val=0.5)
    result = fewer.bench(run, vs="torch-fp32", threads=[1], rounds=2, images=str(scans))
    told = [note for note in result.notes if "dense 2-D part" in note]
    assert told and "% of the whole model's time" in told[0]
    assert all(row.status == "ok" for row in result.rows)
    assert result.input_shapes[0][1:] == [32, 32, 32]


def test_layers_of_a_run_and_of_the_run_that_it_was_made_from(run, tmp_path):
    from fewer.engine.settings import Settings
    from fewer.timing.layers import bench_layers

    scans = Streets(SENSORS["hdl-64"].ahead(30).thinned(8), seed=5).write(tmp_path / "kitti", 4, val=0.5)
    quick = Settings(
        calibration=2, sensing=1, heldout=1, batch=1, estimator="taylor", probes=1, sparsities=(0.5,), allocator="dp",
        search=0, additivity=0, baselines=(), compensation="none", score="magnitude",
    )  # fmt: skip
    fewer.compress(str(run), str(scans), "flops=0.7x", out=tmp_path / "cheap", settings=quick)
    assert bench_layers(str(tmp_path / "cheap"), threads=1, rounds=1).layers
    result = fewer.bench(tmp_path / "cheap", vs="torch-fp32", threads=[1], rounds=1)
    assert not [note for note in result.notes if "not at hand" in note]
    assert [row.status for row in result.rows] == ["ok"] * 3
    compressed = [row for row in result.rows if row.name.startswith("fewer")]
    assert all(row.relative_error > 0 for row in compressed)  # held against the dense detector
