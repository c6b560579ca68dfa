"""Training a classifier in few bits: runs, resumes, stores what it says, and refuses what no format has."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fewer
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.formats.integers import rounded
from fewer.models.artefact import save_artefact
from fewer.models.options import load_checkpoint
from fewer.models.spec import load_model
from fewer.models.trust import trusting
from fewer.quantize.lowbit import LowBitLinear
from fewer.tasks.classify import training
from fewer.tasks.classify.networks import build
from tests.support.tiny_tasks import TINY

STEPS = {"steps": 6, "every": 3, "batch": 8, "learning_rate": 0.01, "augment": "none"}

DEEP = """
from torch import nn


def net():
    part = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU())
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(part(3, 6), part(6, 8), *end), {"input_size": (3, 16, 16), "crop": 1.0}
"""


TWICE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.first, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1), nn.Linear(6, 3)
        self.again = self.first

    def forward(self, x):
        return self.head(self.again(self.first(self.stem(x)).relu()).relu().mean((2, 3)))


def net():
    return Net(), {"input_size": (3, 16, 16), "crop": 1.0}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY["classify"].tiny_data(tmp_path_factory.mktemp("lowbit"))


def network(photos: Path) -> str:
    return f"{photos.parent}/net.py:net"


def test_bits_and_gradients_by_layer_stand_in_the_report(photos: Path, tmp_path: Path) -> None:
    done = fewer.train(
        photos, out=tmp_path / "run", network=network(photos), bits="w4a4g4", quantiser="ste", edges="same", **STEPS
    )
    assert {unit["precision"] for unit in done.units} == {"int4"}
    told = json.loads((tmp_path / "run" / "report.json").read_text())["data"]["few_bits"]
    assert [layer["gradients"] for layer in told["layers"]] == ["4 (stochastic-sample, both)"] * 2
    assert {entry["step"] for entry in told["gradients"]} == {3, 6} and set(told["accuracy"])
    assert "Bits by layer" in (tmp_path / "run" / "report.html").read_text()
    again = fewer.load(tmp_path / "run", trust=True).state_dict()
    assert all(torch.allclose(again[name], value) for name, value in done.model.state_dict().items())


@pytest.mark.parametrize("gradients", ["lbt", "metagrad+nearest", "metagrad-lstm", "metagrad"])
def test_a_resumed_training_equals_the_uninterrupted_one(photos: Path, tmp_path: Path, gradients: str) -> None:
    how = {"network": network(photos), "bits": "w4a4g4", "gradients": gradients, "optimiser": "sgd", **STEPS}
    how |= {"meta_loss": "both", "exact_every": 2} if gradients == "metagrad" else {}
    whole = fewer.train(photos, out=tmp_path / "whole", **how)
    before, calls = training.scores_of, []

    class Stop(Exception):
        pass

    def stop(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise Stop
        return before(model, batch)

    training.scores_of = stop
    try:
        with pytest.raises(Stop):
            fewer.train(photos, out=tmp_path / "cut", **how)
    finally:
        training.scores_of = before
    resumed = fewer.train(photos, out=tmp_path / "cut", resume=True, **how)
    assert resumed.few_bits["gradients"] == whole.few_bits["gradients"] and resumed.history == whole.history
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bits": "w9a4"}, "no format has 9 bits"),
        ({"bits": "four"}, "cannot read the bits"),
        ({"bits": "g4", "gradients": "nearst"}, "did you mean 'nearest'"),
        ({"bits": "w4", "quantiser": "lsqq"}, "did you mean 'lsq'"),
        ({"bits": "w4a4", "gradients": "metagrad"}, "give --bits with g2 to g8"),
    ],
)
def test_what_no_format_has_is_told(photos: Path, wrong: dict[str, str], told: str) -> None:
    with pytest.raises(FewerError, match=told):
        fewer.train(photos, network=network(photos), **wrong, **STEPS)


@pytest.mark.parametrize("method", ["kd", "fitnets", "mutual", "self"])
def test_a_student_learns_from_a_teacher(photos: Path, tmp_path: Path, method: str) -> None:
    fewer.train(photos, out=tmp_path / "teacher", network=network(photos), **STEPS)
    how = {"network": network(photos), "distill": method, "seed": 1, **STEPS}
    if method != "self":
        how["teacher"] = str(tmp_path / "teacher")
    if method in ("fitnets", "self"):  # one convolution alone has no map on the way before the last
        (photos.parent / "deep.py").write_text(DEEP)
        how["network"] = f"{photos.parent}/deep.py:net"
    with trusting(True):
        done = fewer.train(photos, out=tmp_path / "run", **how)
    assert {"labels", "teacher"} <= set(done.history[-1])
    assert done.evaluation is not None and "student" not in next(iter(done.model.state_dict()))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"distill": "kd"}, "needs a teacher; give --teacher"),
        ({"distill": "kdd", "teacher": "x"}, "did you mean 'kd'"),
        ({"distill": "self", "teacher": "x"}, "has no teacher"),
        ({"teacher": "fewer/mobilenet-v2"}, "gives 1000 scores and the data have 3 classes"),
    ],
)
def test_a_teacher_that_does_not_fit_is_told(photos: Path, wrong: dict[str, str], told: str) -> None:
    with pytest.raises(FewerError, match=told):
        fewer.train(photos, network=network(photos), **wrong, **STEPS)


def test_masks_and_precisions_of_a_run_stay(photos: Path, tmp_path: Path) -> None:
    with trusting(True):
        first = fewer.train(photos, out=tmp_path / "first", network=network(photos), **STEPS)
        loaded = load_model(str(tmp_path / "first"))
        weight = first.model[4].weight
        mask = weight.abs() > weight.abs().median()
        cut = loaded.model
        with torch.no_grad():
            cut[4].weight.mul_(mask)
        unit = {"name": "4", "pattern": "unstructured", "sparsity": 0.5, "precision": "int8", "mask": mask}
        with torch.no_grad():
            cut[4].weight.copy_(rounded(cut[4].weight, "int8"))
        meta = {"task": "classify", "model": "net"}
        source = load_model(network(photos)).source
        save_artefact(tmp_path / "cut", cut, [unit], source, meta, preprocess=loaded.preprocess)
        done = fewer.train(
            photos, out=tmp_path / "run", network=network(photos), init=str(tmp_path / "cut"), bits="w8a8", **STEPS
        )
        less = fewer.train(
            photos, network=network(photos), init=str(tmp_path / "cut"), bits="w4a4", edges="same", **STEPS
        )
    after = done.model[4].weight
    assert bool((after[~mask] == 0).all()) and not torch.equal(after, cut[4].weight)
    assert torch.allclose(rounded(after, "int8"), after, atol=1e-6)
    assert done.few_bits["layers"][1]["weights"] == "int8 (plan)"
    assert next(u for u in done.units if u["name"] == "4")["precision"] == "int8"
    unit = next(u for u in less.units if u["name"] == "4")
    assert unit["precision"] == "int4" and torch.equal(unit["mask"], mask)
    assert bool((less.model[4].weight[~mask] == 0).all()) and bool((less.model[4].weight[mask] != 0).any())


def test_a_layer_that_is_used_under_two_names_can_be_stored(photos: Path, tmp_path: Path) -> None:
    (photos.parent / "twice.py").write_text(TWICE)
    with trusting(True):
        how = {"network": f"{photos.parent}/twice.py:net", "bits": "w4a4g4", "quantiser": "ste", "edges": "same"}
        done = fewer.train(photos, out=tmp_path / "run", **how, **STEPS)
        again = fewer.load(tmp_path / "run", trust=True)
    assert len(done.units) == 3 and torch.allclose(again.again.weight, done.model.first.weight)


def test_a_file_of_weights_is_a_start(photos: Path, tmp_path: Path) -> None:
    start = fewer.train(photos, network=network(photos), **STEPS).model.state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in start.items()}}, tmp_path / "start.pth")
    how = {"network": network(photos), **STEPS, "learning_rate": 1e-12}
    done = fewer.train(photos, init=str(tmp_path / "start.pth"), **how).model.state_dict()
    assert all(
        torch.allclose(done[name], value, atol=1e-5) for name, value in start.items() if value.is_floating_point()
    )
    with pytest.raises(FewerError, match="neither a run folder nor a file"):
        fewer.train(photos, init=str(tmp_path / "nothing.pth"), **how)


def test_published_weights_of_an_old_torch_are_a_start(tmp_path: Path) -> None:
    net = build("resnet20", num_classes=10)
    state = {f"module.{name}": value for name, value in net.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    again = load_checkpoint(build("resnet20", num_classes=10), tmp_path / "resnet20.th")
    assert torch.equal(again.conv1.weight, net.conv1.weight)


@pytest.mark.parametrize("quantiser", ["lsq", "lsq+", "ewgs"])
def test_a_step_that_was_learnt_for_a_layer_is_stored_in_four_bits(
    photos: Path, tmp_path: Path, quantiser: str
) -> None:
    how = {"network": network(photos), "bits": "w4a4", "quantiser": quantiser, "edges": "same", **STEPS}
    with trusting(True):
        done = fewer.train(photos, out=tmp_path / "run", **how)
        again = fewer.load(tmp_path / "run")
    assert {unit["precision"] for unit in done.units} == {"int4"}
    assert all(torch.equal(again.state_dict()[name], value) for name, value in done.model.state_dict().items())
    stored = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(name.endswith("@values") for name in stored) == len(done.units)


def test_ranges_that_were_trained_are_exported_without_images(photos: Path, tmp_path: Path) -> None:
    if not all(find_spec(n) for n in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs the [deploy] extra")
    from onnxruntime import InferenceSession

    how = {"network": network(photos), "bits": "w8a8", "quantiser": "ste", **STEPS}
    with trusting(True):
        done = fewer.train(photos, out=tmp_path / "run", **how)
        file = fewer.export(tmp_path / "run", "onnx", activations="static")
        shape = done.model(torch.zeros(1, 3, 16, 16)).shape
    assert file.integers == len(done.units) and any("ranges that the training ended with" in line for line in file.lost)
    assert set(done.few_bits["inputs"]) == {unit["name"] for unit in done.units}
    session = InferenceSession(str(file.path))
    got = session.run(None, {session.get_inputs()[0].name: torch.zeros(1, 3, 16, 16).numpy()})[0]
    assert got.shape == tuple(shape)


HEADS = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.early, self.late, self.aux, self.head = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, 2), *made()

    def forward(self, x):
        x = self.early(x).relu()
        y = self.head(self.late(x).relu().mean((2, 3)))
        return (y, self.aux(x.mean((2, 3)))) if self.training else y


def made():
    return nn.Linear(6, 3), nn.Linear(6, 3)


def net():
    return Net(), {"input_size": (3, 16, 16), "crop": 1.0}
"""


def test_scores_that_a_network_gives_in_training_alone_learn_too(photos: Path) -> None:
    (photos.parent / "heads.py").write_text(HEADS)
    how = {"network": f"{photos.parent}/heads.py:net", "bits": "w4a4g4", **STEPS}
    with trusting(True):
        done = fewer.train(photos, **how)
    assert {"labels", "beside"} <= set(done.history[-1]) and done.evaluation is not None
    bits = {layer["name"]: (layer["weights"][0], layer["why"]) for layer in done.few_bits["layers"]}
    assert bits["early"] == ("8", "the first layer") and bits["head"] == ("8", "the last layer")
    assert bits["late"] == bits["aux"] == ("4", "")


def test_the_last_step_is_watched_where_it_ends_no_stretch(photos: Path) -> None:
    how = {"network": network(photos), "bits": "g4", **STEPS, "steps": 4, "every": 3}
    assert {entry["step"] for entry in fewer.train(photos, **how).few_bits["gradients"]} == {3, 4}
    assert {entry["step"] for entry in fewer.train(photos, **how | {"every": 50}).few_bits["gradients"]} == {4}


ATTEND = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, activation="relu")

    def forward(self, x):
        return self.head(self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def net():
    return Net(), {"input_size": (3, 16, 16), "crop": 1.0}
"""


def test_validations_see_rounded_weights_where_torch_has_a_fused_layer(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "attend.py").write_text(ATTEND)
    seen: list[str] = []
    forward = LowBitLinear.forward

    def noted(self: LowBitLinear, x: torch.Tensor) -> torch.Tensor:
        if not self.training and not torch.is_grad_enabled():
            seen.append(f"{self.in_features} to {self.out_features}")
        return forward(self, x)

    monkeypatch.setattr(LowBitLinear, "forward", noted)
    monkeypatch.setattr(training, "_judge", lambda *_: None)  # the end, which is judged in another place
    with trusting(True):
        fewer.train(photos, network=f"{photos.parent}/attend.py:net", bits="w4a4", **STEPS)
    assert {"8 to 16", "16 to 8", "8 to 3"} <= set(seen)


def test_a_compression_tells_that_bits_of_a_training_are_not_its_own(photos: Path, tmp_path: Path) -> None:
    with trusting(True):
        for name, bits in (("few", "w4a4"), ("plain", None)):
            fewer.train(photos, out=tmp_path / name, network=network(photos), bits=bits, **STEPS)
            settings = Settings(calibration=4, sensing=2, heldout=2, device="cpu")
            notes = prepare(str(tmp_path / name), photos, settings).inputs.notes
            assert any("stored in few bits" in note for note in notes) == (name == "few")


def test_a_run_in_few_bits_gets_smaller_and_is_counted_from_what_it_stores(photos: Path, tmp_path: Path) -> None:
    """Half of such a run had three times its bytes: a relative size counted from 32 bits, and so did its layers."""
    quick = Settings(calibration=6, sensing=3, heldout=3, device="cpu", workers=1, additivity=0, baselines=())
    with trusting(True):
        fewer.train(photos, out=tmp_path / "few", network=network(photos), bits="w4a4", **STEPS)
        before = (tmp_path / "few" / "model.safetensors").stat().st_size
        for budget in ("size=0.8x", "weights=60%"):
            small = fewer.compress(str(tmp_path / "few"), photos, budget, settings=quick)
            precisions = {Option.parse(unit.option).precision for unit in small.plan.units.values()}
            assert precisions <= {"int4", "int8"}
            assert small.plan.dense["size"] < before + 500  # the names in a file take some
            assert small.plan.cost["size"] < small.plan.dense["size"]


@pytest.mark.parametrize("method", ["rkd", "similarity-preserving"])
def test_a_teacher_is_compared_in_full_precision(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    (photos.parent / "deep.py").write_text(DEEP)
    how = {"network": f"{photos.parent}/deep.py:net", **STEPS, "steps": 2}
    kinds: set[tuple[torch.dtype, bool]] = set()
    matmul, einsum, convolve = torch.Tensor.__matmul__, torch.einsum, torch.nn.Conv2d.forward
    convolved: set[torch.dtype] = set()

    def seen(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        found = convolve(self, x)
        convolved.add(found.dtype)
        return found

    def noted(run: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any) -> Any:
            found = run(*given)
            kinds.add((found.dtype, torch.is_autocast_enabled("cpu")))
            return found

        return wrapped

    with trusting(True):
        fewer.train(photos, out=tmp_path / "teacher", **how)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "__matmul__", noted(matmul))
            patch.setattr(torch, "einsum", noted(einsum))
            patch.setattr(torch.nn.Conv2d, "forward", seen)
            fewer.train(photos, teacher=str(tmp_path / "teacher"), distill=method, precision="bf16", seed=1, **how)
    assert kinds == {(torch.float32, False)} and torch.bfloat16 in convolved
