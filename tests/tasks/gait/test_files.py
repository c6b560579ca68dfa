"""A gait network in files for other runtimes, which take sequences of any length."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

import fewer
from fewer.models.artefact import save_artefact
from fewer.tasks.gait.networks import NETWORKS, build_network

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def saved(place, network: str, tpa=None):
    torch.manual_seed(0)
    made = build_network({"network": network, "size": "tiny", "tpa": tpa}).eval()
    place.mkdir()
    args = made.config.model_dump(mode="json")
    source = {"kind": "task", "task": "gait", "name": network, "args": args}
    save_artefact(place, made, [], source, {"task": "gait", "input_size": [30, 64, 44]})
    return place, made


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_file_takes_sequences_of_any_length(tmp_path, network):
    run, net = saved(tmp_path / "run", network)
    made = fewer.export(run, "onnx")
    any_length = any("but for the number of frames" in line for line in made.lost)
    assert any_length == (network != "gaitpart")  # its short movements fix the number when they are exported
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    for frames in (9, 30, 61) if any_length else (30,):
        x = torch.rand(1, frames, 64, 44)
        with torch.no_grad():
            expected = net(x).numpy()
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert np.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("tpa", ["off", "moments"])
def test_so_does_a_program_of_torch(tmp_path, tpa):
    from fewer.tasks.gait.tpa import CHOICES

    run, net = saved(tmp_path / "run", "gaitbase", CHOICES[tpa])
    made = fewer.export(run, "torch")
    assert any("but for the number of frames" in line for line in made.lost)
    program = torch.export.load(made.path).module()
    x = torch.rand(1, 41, 64, 44)
    with torch.no_grad():
        assert torch.allclose(program(x), net(x), atol=1e-4)


def test_a_run_knows_its_input(tmp_path):
    run, net = saved(tmp_path / "run", "gaitbase")
    fast = fewer.load(run, accelerated=True)
    x = torch.rand(1, 12, 64, 44)
    with torch.no_grad():
        assert torch.allclose(fast(x), net(x), atol=1e-3)


def test_hidden_files_of_other_systems_are_no_sequences(tmp_path):
    from fewer.tasks.gait.data.dataset import open_data, write_sequence
    from fewer.tasks.gait.data.loose import open_sequences
    from fewer.tasks.gait.doctor import checkup
    from fewer.tasks.gait.protocols.records import Walk

    walk = Walk("a b", "nm-01", "000")
    place = write_sequence(tmp_path, walk, np.full((20, 64, 64), 255, np.uint8))
    (place.parent / "._000.npz").write_bytes(b"\0\5\26\7")
    (tmp_path / "._a.npz").write_bytes(b"\0\5\26\7")
    assert open_data(tmp_path).frames(walk).shape == (20, 64, 64)
    assert set(open_sequences(tmp_path).places) == {walk}
    assert "layout" not in {finding.check for finding in checkup(tmp_path).findings}


@pytest.mark.parametrize(("below", "count"), [("", 3), ("a b", 2), ("a b/nm-01", 2), ("a b/nm-01/000", 1)])
def test_a_part_of_a_set_can_be_asked_for(tmp_path, below, count):
    from fewer.tasks.gait.data.dataset import write_sequence
    from fewer.tasks.gait.data.loose import open_sequences
    from fewer.tasks.gait.protocols.records import Walk

    for person, view in (("a b", "000"), ("a b", "090"), ("c", "000")):
        write_sequence(tmp_path, Walk(person, "nm-01", view), np.full((3, 64, 64), 255, np.uint8))
    data = open_sequences(tmp_path / below)
    assert len(data) == count
    if count == 2:
        assert set(data.places) == {Walk("a b", "nm-01", "000"), Walk("a b", "nm-01", "090")}


def test_one_sequence_is_halved_so_that_no_frame_judges_what_it_has_steered(tmp_path):
    from fewer.models.spec import load_model
    from fewer.tasks.gait.inputs import walks_for

    run, _ = saved(tmp_path / "run", "gaitbase")
    frames = np.zeros((9, 64, 64), np.uint8)
    frames[:, 2:62, 20:40] = np.arange(1, 10)[:, None, None] * 20
    np.savez(tmp_path / "a.npz", silhouettes=frames)
    steered, judged = (
        walks_for(load_model(str(run)), tmp_path / "a.npz", 4, part=part, seed=0) for part in ("calibration", "heldout")
    )
    seen = [set(np.unique(some.items[0].numpy())) - {0.0} for some in (steered, judged)]
    assert [len(some.items[0]) for some in (steered, judged)] == [4, 5] and not seen[0] & seen[1]


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_sequences_of_one_person_either_steer_or_judge(tmp_path, count):
    from fewer.models.spec import load_model
    from fewer.tasks.gait.inputs import walks_for

    run, _ = saved(tmp_path / "run", "gaitbase")
    for number in range(count):
        place = tmp_path / "w" / "a" / f"nm-0{number + 1}" / "090"
        place.mkdir(parents=True)
        np.savez(place / "x.npz", silhouettes=np.full((2, 64, 64), 255, np.uint8))
    parts = [
        set(walks_for(load_model(str(run)), tmp_path / "w", 99, part=part, seed=0).files)
        for part in ("calibration", "heldout")
    ]
    assert all(parts) and not parts[0] & parts[1] and len(parts[0] | parts[1]) == count


def test_sequences_of_many_lengths_go_through_the_network_together(tmp_path):
    from fewer.models.spec import load_model
    from fewer.tasks.gait.inputs import walks_for

    run, _ = saved(tmp_path / "run", "gaitbase")
    for number in range(24):
        place = tmp_path / "w" / f"{number % 3}" / f"nm-{number:02}" / "090"
        place.mkdir(parents=True)
        frames = np.full((20 + number, 64, 64), 255, np.uint8)
        frames[:, 30, 30] = number
        np.savez(place / "x.npz", silhouettes=frames)
    some = walks_for(load_model(str(run)), tmp_path / "w", 99, part="calibration", seed=0)
    assert {len(item) for item in some.items} <= {16, 24, 36}
    assert sum(len(part) for part in some.split(4) if len(part) > 1) >= 0.8 * len(some) > 12
    for item, file in zip(some.items, some.files, strict=True):  # what is told of a sample is told of its file
        assert round(255 * float(item[0, 30, 20])) == int(file.parent.parent.name[3:])
