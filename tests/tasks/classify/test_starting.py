"""What a training starts from: runs with masks and patterns, other classes; teachers, and settings that do nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.core.progress import Silent
from fewer.data.decode import to_array
from fewer.data.preprocess import Preprocess
from fewer.kernels.pixels import fewer_pixels, pixels_of
from fewer.models.artefact import load_recipe, save_artefact
from fewer.models.spec import load_model
from fewer.models.trust import trusting
from fewer.tasks.classify.batches import Augmented
from fewer.tasks.classify.distil import _between
from fewer.tasks.classify.networks import build
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.starting import start_of
from fewer.tasks.classify.training import LAST_GOOD, _example, prepare
from tests.support.tiny_tasks import TINY

STEPS = {"steps": 4, "every": 2, "batch": 8, "learning_rate": 0.01, "augment": "none"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY["classify"].tiny_data(tmp_path_factory.mktemp("starting"))


@pytest.fixture(scope="module")
def run(photos: Path) -> Path:
    """A run of a network of the house, at 8 pixels so that it is quick."""
    fewer.train(photos, out=photos.parent / "run", network="resnet8", input_size=8, **STEPS)
    return photos.parent / "run"


def cut_of(run: Path, place: Path, pattern: str, name: str = "layer3.0.conv2") -> torch.Tensor:
    """The run with half of the rows of one layer gone; gives the mask."""
    loaded = load_model(str(run))
    weight = loaded.model.get_submodule(name).weight
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[::2] = True
    with torch.no_grad():
        weight.mul_(mask)
        weight[0, 0] = 0.0  # kept, and zero by chance
    unit = {"name": name, "pattern": pattern, "sparsity": 0.5, "precision": "fp32", "mask": mask}
    meta = {"task": "classify", "classify": dict(loaded.meta["classify"]), "model": loaded.meta["model"]}
    save_artefact(place, loaded.model, [unit], loaded.source, meta, preprocess=loaded.preprocess)
    return mask


def test_a_run_brings_its_own_network_masks_and_patterns(photos: Path, run: Path, tmp_path: Path) -> None:
    mask = cut_of(run, tmp_path / "cut", "unstructured")
    told = prepare(photos, TrainSettings(init=str(tmp_path / "cut"))).lines()
    assert any("resnet8" in line for line in told) and any("1 layers keep the mask" in line for line in told)
    done = fewer.train(photos, out=tmp_path / "done", init=str(tmp_path / "cut"), weight_decay=0.0, **STEPS)
    weight = done.model.layer3[0].conv2.weight
    assert bool((weight[~mask] == 0).all())
    assert bool((weight[0, 0] != 0).any()), "a weight that was zero by chance may learn"
    assert load_recipe(tmp_path / "done").units[0].pattern == "unstructured"
    with pytest.raises(FewerError, match="leave --network out"):
        fewer.train(photos, init=str(tmp_path / "cut"), network="resnet20", **STEPS)


@pytest.mark.parametrize(("bits", "quantiser"), [("wba8", "auto"), ("wba8", "ste"), ("w4a8", "dorefa")])
def test_what_was_cut_stays_cut_in_formats_without_a_zero(
    photos: Path, run: Path, tmp_path: Path, bits: str, quantiser: str
) -> None:
    mask = cut_of(run, tmp_path / "cut", "unstructured")
    fewer.train(photos, out=tmp_path / "done", init=str(tmp_path / "cut"), bits=bits, quantiser=quantiser, **STEPS)
    weight = fewer.load(tmp_path / "done").layer3[0].conv2.weight
    assert bool((weight[~mask] == 0).all()) and bool((weight[mask] != 0).any())


@pytest.mark.parametrize(("batch", "images"), [(1, 12), (5, 10), (8, 8), (64, 12)])
def test_ranges_start_from_several_images_where_batches_are_small(photos: Path, batch: int, images: int) -> None:
    settings = TrainSettings(network="resnet8", batch=batch)
    prepared = prepare(photos, settings)
    rows = prepared.rows[:12]
    batches = Augmented(prepared.data, rows, prepared.loaded.preprocess, settings, Silent())
    assert len(_example(batches)) == images


@pytest.mark.parametrize(("network", "side"), [("vgg16-bn-narrow", 16), ("vit-nano", 48)])
def test_a_size_that_a_network_cannot_take_is_told(photos: Path, network: str, side: int) -> None:
    with pytest.raises(FewerError, match=f"no scores for images of {side} x {side} pixels; leave --input-size out"):
        prepare(photos, TrainSettings(network=network, input_size=side))


def test_the_name_of_a_pattern_is_kept(photos: Path, run: Path, tmp_path: Path) -> None:
    cut_of(run, tmp_path / "cut", "block:1x4")
    start = start_of(TrainSettings(init=str(tmp_path / "cut")), open_data(photos).classes)
    assert start.patterns == {"layer3.0.conv2": "block:1x4"} and start.held["layer3.0.conv2"].mask is not None


def test_a_run_for_other_classes_sees_as_few_pixels_as_before(photos: Path, run: Path, tmp_path: Path) -> None:
    loaded = load_model(str(run))
    meta = {"task": "classify", "classify": dict(loaded.meta["classify"]), "model": loaded.meta["model"]}
    small = fewer_pixels(loaded.model, 3, 4, 1.5)
    save_artefact(tmp_path / "small", small, [], loaded.source, meta, preprocess=loaded.preprocess)
    for classes in (open_data(photos).classes, ("a", "b")):
        start = start_of(TrainSettings(init=str(tmp_path / "small")), classes)
        assert pixels_of(start.loaded.model) == (3, 4, 1.5)


def test_a_run_for_other_classes_gets_a_new_last_layer(photos: Path, run: Path, tmp_path: Path) -> None:
    two = Path(shutil.copytree(photos, tmp_path / "two"))
    shutil.rmtree(two / "disc")
    told = prepare(two, TrainSettings(init=str(run))).lines()
    assert any("for 3 classes, is replaced by one for 2" in line for line in told)
    done = fewer.train(two, out=tmp_path / "done", init=str(run), **STEPS)
    assert done.model.linear.out_features == 2
    assert fewer.evaluate(tmp_path / "done", two).measures()["top-1 accuracy"] >= 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gradients": "luq"}, "--gradients luq changes nothing without --bits"),
        ({"edges": "fp32"}, "--edges fp32 changes nothing without --bits"),
        ({"bits": "w8a8", "gradients": "luq"}, "give --bits with g2 to g8"),
        ({"bits": "w8a8g4", "meta_loss": "exact"}, "is for a hypernetwork"),
        ({"init": "nowhere"}, "neither a run folder nor a file"),
        ({"init": "."}, "neither a run folder nor a file"),
    ],
)
def test_what_would_change_nothing_is_told(photos: Path, wrong: dict[str, str], told: str) -> None:
    with pytest.raises(FewerError, match=told):
        prepare(photos, TrainSettings(**wrong))


def teacher_with(run: Path, place: Path, classes: list[str], order: list[int]) -> Path:
    """The run with other names of its outputs, and rows of its last layer in another order."""
    loaded = load_model(str(run))
    with torch.no_grad():
        for value in loaded.model.linear.parameters():
            value.copy_(value[order])
    meta = {"task": "classify", "classify": {"classes": classes}, "model": "resnet8"}
    save_artefact(place, loaded.model, [], loaded.source, meta, preprocess=loaded.preprocess)
    return place


def test_a_teacher_with_its_classes_in_another_order_teaches_the_same(photos: Path, run: Path, tmp_path: Path) -> None:
    names, how = list(open_data(photos).classes), {"network": "resnet8", "input_size": 8, "distill": "kd", **STEPS}
    turned = teacher_with(run, tmp_path / "turned", [names[i] for i in (2, 0, 1)], [2, 0, 1])
    one, other = (fewer.train(photos, teacher=str(t), **how).model.state_dict() for t in (run, turned))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    foreign = teacher_with(run, tmp_path / "foreign", ["beagle", "collie", "pug"], [0, 1, 2])
    with pytest.raises(FewerError, match=r"knows other classes \(beagle"):
        fewer.train(photos, teacher=str(foreign), **how)


def test_exact_gradients_teach_the_hypernetwork_and_change_nothing_else(photos: Path, tmp_path: Path) -> None:
    how = {"network": "resnet8", "input_size": 8, "bits": "w8a8g4", "optimiser": "sgd", "momentum": 0.9, **STEPS}
    seen = {}
    for loss in ("next", "exact", "both"):
        done = fewer.train(photos, gradients="scalar-gain+nearest", meta_loss=loss, exact_every=1, **how)
        seen[loss] = done.model.state_dict()
    plain = fewer.train(photos, gradients="nearest", **how).model.state_dict()
    # an untaught gain is 1, so the first step is that of the rounding alone; lessons change the later ones
    assert not torch.equal(seen["next"]["conv1.weight"], seen["exact"]["conv1.weight"])
    assert not torch.equal(seen["both"]["conv1.weight"], seen["exact"]["conv1.weight"])
    assert all(torch.allclose(seen["exact"][n], plain[n], atol=0.1) for n in plain if "weight" in n)


@pytest.mark.parametrize("after", [1, 3])
def test_a_loss_that_is_no_number_leaves_the_last_good_state(
    photos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    how, usual, drawn = {"network": "resnet8", "input_size": 8}, torch.nn.functional.cross_entropy, []
    batch = Augmented.batch

    def noted(self: Augmented, step: int):
        drawn.append(step)
        return batch(self, step)

    def broken(*given, **named):
        return usual(*given, **named) * (1.0 if drawn[-1] < after else float("nan"))

    shutil.copytree(run, tmp_path / "run")  # a finished run that is to be replaced stays until the new one is finished
    with monkeypatch.context() as patch:
        patch.setattr(Augmented, "batch", noted)
        patch.setattr(torch.nn.functional, "cross_entropy", broken)
        told = "the best so far" if after > 2 else "the last good step"
        with pytest.raises(FewerError, match=rf"loss is nan.*{told}.*last_good\.safetensors.*--init"):
            fewer.train(photos, out=tmp_path / "run", overwrite=True, **how, **STEPS)
    kept = tmp_path / "run" / LAST_GOOD
    assert kept.is_file() and fewer.load(tmp_path / "run") is not None
    again = fewer.train(photos, out=tmp_path / "run", overwrite=True, init=str(kept), **how, **STEPS)
    assert again.evaluation is not None and not kept.exists()


def test_photos_that_a_small_network_would_blur_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ä b", "Train 1"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 255, (150, 200, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"#{i} %.jpg")
    assert any("hint: images are about 150 pixels" in line for line in prepare(tmp_path / "photos").lines())


def test_weights_of_eight_bits_are_stored_as_integers_by_default(photos: Path) -> None:
    done = fewer.train(photos, network="resnet8", input_size=8, bits="w4a4", **STEPS)
    kinds = [unit["precision"] for unit in done.units]
    assert kinds[0] == kinds[-1] == "int8" and set(kinds[1:-1]) == {"int4"}
    assert done.few_bits["layers"][0]["weights"] == "8 (ste)" and done.few_bits["layers"][1]["weights"] == "4 (lsq)"
    assert len(done.few_bits["inputs"][done.few_bits["layers"][1]["name"]]) == 4


@pytest.mark.parametrize("where", ["kernels", "onnxruntime"])
def test_accuracy_is_measured_where_a_network_runs(photos: Path, tmp_path: Path, where: str) -> None:
    if where == "onnxruntime":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="needs the [deploy] extra")
    steps = {**STEPS, "steps": 30, "every": 30}
    done = fewer.train(photos, out=tmp_path / "run", network="resnet8", input_size=16, bits="w4a4", **steps)
    if where == "onnxruntime":
        with pytest.raises(FewerError, match="write it first: fewer export"):
            fewer.evaluate(tmp_path / "run", photos, where=where)
        file = fewer.export(tmp_path / "run", "onnx", activations="static", deploy_batch=4)
        assert file.integers == len(done.units) == 8
    found = fewer.evaluate(tmp_path / "run", photos, where=where, out=tmp_path / "scores")
    assert done.evaluation is not None and len(found) == len(done.evaluation)
    assert abs(found.top1 - done.evaluation.top1) <= 0.2  # of six images, at most one is another
    assert f"run by {where}" in (tmp_path / "scores" / "evaluation.html").read_text()


def test_places_that_do_not_go_together_are_told(photos: Path, run: Path) -> None:
    with pytest.raises(FewerError, match="give --where onnxruntime"):
        fewer.evaluate(run, photos, file="model.onnx")
    with pytest.raises(FewerError, match="needs a run folder"), trusting(True):
        fewer.evaluate(f"{photos.parent}/net.py:net", photos, where="kernels")


def test_inputs_of_four_bits_are_the_same_in_the_onnx_file(photos: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the [deploy] extra")
    from onnxruntime import InferenceSession, SessionOptions

    from fewer.quantize.lowbit import exchange, parse_bits, plain
    from fewer.quantize.qat import trained_ranges
    from fewer.quantize.qdq import with_integers
    from fewer.runtimes.export import to_onnx

    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    exchange(net, parse_bits("w4a4"), images, edges="same")
    with torch.no_grad():
        wanted, ranges = net(images), trained_ranges(net)
        graph = to_onnx(plain(net), images)
    done = with_integers(graph, {name: net[int(name)].weight for name in ("0", "2")}, ranges)
    assert done == ["0", "2"] and ranges["2"].to_list()[2:] == [0, 15]
    assert json.dumps(ranges["0"].to_list()[2:]) == "[121, 135]"
    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(graph.SerializeToString(), options)
    got = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert float((torch.from_numpy(got) - wanted).norm() / wanted.norm()) < 0.02


def test_published_weights_for_other_classes_are_a_start(photos: Path, tmp_path: Path) -> None:
    net = build("resnet8", num_classes=7)
    torch.save(net.state_dict(), tmp_path / "seven.pth")
    start = start_of(TrainSettings(network="resnet8", init=str(tmp_path / "seven.pth")), open_data(photos).classes)
    assert "linear.weight is for other classes there" in start.notes[0]
    assert torch.equal(start.loaded.model.conv1.weight, net.conv1.weight)
    # weights that happen to be those that the network has already are no new layer
    own = start_of(TrainSettings(network="resnet8"), open_data(photos).classes).loaded.model
    torch.save(own.state_dict(), tmp_path / "same.pth")
    again = start_of(TrainSettings(network="resnet8", init=str(tmp_path / "same.pth")), open_data(photos).classes)
    assert "other classes" not in again.notes[0]
    torch.save(build("resnet20", num_classes=3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(FewerError, match="is of another model"):
        start_of(TrainSettings(network="resnet8", init=str(tmp_path / "other.pth")), open_data(photos).classes)


def test_a_teacher_sees_grey_where_its_student_sees_colours_and_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
    colour = Preprocess((3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop=1.0)
    grey = Preprocess((1, 8, 8), mean=(0.1,), std=(0.5,), crop=1.0)
    seen, wanted = (torch.from_numpy(to_array(picture, how))[None] for how in (colour, grey))
    assert torch.allclose(_between(colour, grey)(seen), wanted, atol=0.01)  # Pillow rounds grey to whole numbers
    levels = wanted * 0.5 + 0.1
    assert torch.allclose(_between(grey, colour)(wanted)[:, 1:2], (levels - 0.4) / 0.3, atol=1e-5)
    assert _between(grey, colour)(wanted).shape == (1, 3, 8, 8)
    with pytest.raises(FewerError, match="the teacher sees 4 channels and the student 3"):
        _between(colour, Preprocess((4, 8, 8), mean=0.5, std=0.5))
