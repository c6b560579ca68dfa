"""The command, as a function, from a user's own model file."""

from __future__ import annotations

import json

import pytest

from fewer.cli.bench import bench
from fewer.cli.flags import Shared
from fewer.core.errors import FewerError
from fewer.timing import BenchResult


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)), {'input_size': (3, 8, 8)}\n"
    )
    return f"{path}:make"


def test_json_mode_prints_json_and_nothing_else(spec, tmp_path, capfd):
    out = tmp_path / "out"
    assert (
        bench(spec, vs=["torch-fp32"], threads="1", deploy_batch=2, rounds=3, shared=Shared(out=str(out), json=True))
        == 0
    )
    printed, errors = capfd.readouterr()
    result = BenchResult.from_json(printed)
    assert result.input_shapes == [[2, 3, 8, 8]] and result.rounds == 3 and errors == ""
    assert result == BenchResult.from_json(out / "bench.json")
    assert (out / "bench.svg").read_text().startswith("<svg")
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.svg"]
    with pytest.raises(FewerError, match="--overwrite"):
        bench(spec, vs=["torch-fp32"], shared=Shared(out=str(out)))


def test_layers_mode_prints_a_table(spec, capsys):
    assert bench(spec, layers=True, rounds=3, threads="1") == 0
    text = capsys.readouterr().out
    assert "Linear" in text and "Measured roofline" in text


def test_dry_run_times_nothing(spec, tmp_path, capsys):
    assert bench(spec, vs=["torch"], threads="1", shared=Shared(out=str(tmp_path / "out"), dry_run=True)) == 0
    text = capsys.readouterr().out
    assert "torch eager bf16" in text and "bench.json" in text and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threads": "one"}, "numbers such as 1"),
        ({"shared": Shared(device="cuda")}, "'cuda' cannot be used"),
        ({"shared": Shared(out=__file__)}, "is a file"),
        ({"layers": True, "threads": "1,2"}, "one thread setting"),
        ({"images": "no/such/folder"}, "does not exist"),
        ({"vs": ["tensorrt"]}, "unknown peer 'tensorrt'"),
    ],
)
def test_bad_flags_are_one_sentence(spec, arguments, words):
    with pytest.raises(FewerError, match=words):
        bench(spec, **{"rounds": 1, **arguments})


@pytest.fixture
def saved_run(spec, tmp_path):
    """A run folder whose linear layer has lost the upper half of its rows."""
    import torch

    from fewer.models.artefact import save_artefact
    from fewer.models.spec import load_model

    loaded = load_model(spec)
    mask = torch.zeros(4, 192, dtype=torch.bool)
    mask[2:] = True
    with torch.no_grad():
        loaded.model[1].weight.mul_(mask)
    unit = {"name": "1", "pattern": "unstructured", "sparsity": 0.5, "precision": "fp32", "mask": mask}
    save_artefact(tmp_path / "run", loaded.model, [unit], loaded.source, preprocess=loaded.preprocess)
    return tmp_path / "run"


def test_a_run_is_timed_beside_its_dense_original(saved_run, capsys):
    assert bench(str(saved_run), vs=["torch-fp32"], threads="1", rounds=2, shared=Shared(json=True)) == 0
    result = BenchResult.from_json(capsys.readouterr().out)
    dense, compressed, fast = result.rows
    assert (dense.name, compressed.name, compressed.kind) == ("torch-fp32", f"fewer {saved_run}", "extra")
    assert "accelerated" in fast.name and fast.status == "ok"
    assert abs(fast.relative_error - compressed.relative_error) < 0.01
    assert dense.relative_error == 0 and 0.1 < compressed.relative_error < 1
    assert compressed.own_process and compressed.status == "ok"


def test_a_run_without_its_original_says_so(saved_run, monkeypatch, capsys):
    def missing(spec, path):
        raise FewerError("the weights are not installed")

    monkeypatch.setattr("fewer.timing.sources._dense", missing)
    bench(str(saved_run), vs=["torch-fp32"], threads="1", rounds=2, shared=Shared(json=True))
    result = BenchResult.from_json(capsys.readouterr().out)
    assert "the weights are not installed" in result.notes[0] and "zeros included" in result.notes[0]
    assert result.rows[1].relative_error == 0


def test_a_damaged_run_is_one_sentence(saved_run):
    (saved_run / "recipe.json").write_text("{")
    with pytest.raises(FewerError, match=r"recipe\.json"):
        bench(str(saved_run), rounds=1)


def test_a_saved_bench_is_plain_json(spec, tmp_path, capsys):
    bench(spec, vs=["torch-fp32"], threads="1", rounds=2, shared=Shared(json=True))
    data = json.loads(capsys.readouterr().out)
    assert data["table"][0]["name"] == "torch-fp32" and data["table"][0]["versus_eager"] == 1.0
