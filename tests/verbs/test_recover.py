"""Recover: a run gets better and stays a run; what may not change does not; an interruption costs nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.data.samples import Samples
from fewer.models.artefact import load_masks, load_recipe
from fewer.reports import RunReport
from fewer.verbs.recover import CHECKPOINT, recover
from tests.engine.test_shrink import mobile
from tests.support.nets import images, quick, small


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A compressed run whose repair is poor, so that there is something to win back."""
    place = tmp_path_factory.mktemp("made") / "run"
    settings = quick(compensation="none", calibration=60, heldout=12, baselines=("uniform",))
    fewer.compress(small(), images(72), "weights=40%", settings=settings, out=place)
    return place


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def again(place: Path, steps: int | None = 60, **kwargs):
    settings = {"learning_rate": 0.02, **kwargs.pop("settings", {})}
    time = kwargs.pop("time", None)
    return recover(place, time, steps=steps, model=small(), images=images(72), settings=settings, **kwargs)


def report(place: Path) -> RunReport:
    return RunReport.from_json((place / "report.json").read_text())


def files(place: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in place.iterdir() if p.is_file()}


def test_a_run_gets_better_and_stays_a_run(place):
    before, masks = report(place), load_masks(place)
    done = again(place)
    after = report(place)
    # half of the held-out images tell what was won, all of them what the model is worth
    assert after.recovery.before == pytest.approx(before.verdict.distortion, rel=0.3)
    assert after.recovery.after < 0.8 * after.recovery.before
    assert after.verdict.distortion < 0.8 * before.verdict.distortion
    assert after.recovery.choosing == 6
    assert after.recovery.won == pytest.approx(1 - after.recovery.after / after.recovery.before)
    loaded, x = fewer.load(place, small), images(3, 9)
    assert torch.equal(loaded(x), done.model(x)) and not loaded.training
    assert all(torch.equal(mask, load_masks(place)[name]) for name, mask in masks.items())
    for name, mask in masks.items():
        assert bool((loaded.get_submodule(name).weight[~mask] == 0).all())
    assert fewer.load(place, small, accelerated=True, example=x)(x).shape == (3, 10)
    assert fewer.report(place).read_text() == (place / "report.html").read_text()
    page = (place / "report.html").read_text()
    assert "Recovery by training" in page and "Learning curve" in page
    assert after.baselines[0].name == "recovered" and len(after.baselines) == len(before.baselines) + 1
    assert not (place / ".scratch").exists()
    assert (place / "plan.json").exists() and fewer.plan(place, "weights=40%").units


def test_recovering_twice_counts_from_the_first_start(place):
    again(place)
    first = report(place)
    again(place, 20)
    second = report(place)
    assert second.recovery.before == first.recovery.before
    assert second.recovery.seconds > first.recovery.seconds
    assert sum(row.name == "recovered" for row in second.baselines) == 1
    assert len(second.limits) == len(first.limits)


def test_the_same_seed_and_steps_give_the_same_model(place, tmp_path):
    one, two, three = (again(place, 12, out=tmp_path / str(i), seed=i // 2) for i in range(3))
    assert all(torch.equal(v, two.model.state_dict()[k]) for k, v in one.model.state_dict().items())
    assert not torch.equal(one.model.conv.weight, three.model.conv.weight)


def test_out_leaves_the_old_run_as_it_was(place, tmp_path):
    before = files(place)
    done = again(place, out=tmp_path / "new")
    assert files(place) == before
    assert done.folder == tmp_path / "new"
    assert set(files(tmp_path / "new")) == {*before, "history-recover.csv"}
    assert fewer.load(tmp_path / "new", small)(images(2)).shape == (2, 10)
    with pytest.raises(FewerError, match="already holds a run"):
        again(place, out=tmp_path / "new")
    again(place, 5, out=tmp_path / "new", overwrite=True)


@pytest.mark.parametrize("precision", ["int8", "int4", "bf16"])
def test_low_precisions_are_stored_as_they_were_trained(tmp_path, precision):
    place = tmp_path / "run"
    settings = quick(precisions=(precision,), sparsities=(0.25, 0.5), compensation="none", calibration=60, heldout=12)
    fewer.compress(small(), images(72), "weights=60%", settings=settings, out=place)
    size = (place / "model.safetensors").stat().st_size
    done = again(place)
    assert {unit.stored_as for unit in load_recipe(place).units} == {precision}
    assert (place / "model.safetensors").stat().st_size <= size
    x = images(3, 5)
    assert torch.equal(fewer.load(place, small)(x), done.model(x))
    assert done.report.recovery.after <= done.report.recovery.before


def test_time_is_kept(place):
    done = again(place, None, time=6)
    assert 3 < done.report.recovery.seconds < 8  # a busy machine judges longer than it foresaw
    assert done.report.recovery.steps > 10


def test_a_time_that_is_too_short_says_what_is_needed(place):
    before = files(place)
    with pytest.raises(FewerError, match="give at least --time"):
        again(place, None, time="1s")
    assert {k: v for k, v in files(place).items() if k != "log.jsonl"} == {
        k: v for k, v in before.items() if k != "log.jsonl"
    }


def test_interrupted_then_resumed_is_the_same_as_never_stopped(place, tmp_path, monkeypatch):
    whole = again(place, 30, out=tmp_path / "whole")
    before = files(place)
    from fewer.data.crops import TensorViews

    draw = TensorViews.draw

    def interrupted(self, step: int, count: int):
        if step == 17:
            raise KeyboardInterrupt
        return draw(self, step, count)

    monkeypatch.setattr(TensorViews, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again(place, 30)
    monkeypatch.setattr(TensorViews, "draw", draw)
    assert {k: v for k, v in files(place).items() if k != "log.jsonl"} == {
        k: v for k, v in before.items() if k != "log.jsonl"
    }, "the run is as it was"
    assert (place / ".scratch" / CHECKPOINT).exists()
    with pytest.raises(FewerError, match="interrupted recovery; give --resume"):
        again(place, 30)
    with pytest.raises(FewerError, match="other settings"):
        again(place, 30, resume=True, settings={"batch": 3})
    done = again(place, 30, resume=True)
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k, v in done.model.state_dict().items())
    assert not (place / ".scratch").exists()


def test_a_recovery_that_was_killed_while_it_tidied_up_is_done(place, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "clear_scratch", killed)
        again(place, 6)
    made = files(place)
    assert (place / ".scratch").exists()
    done = again(place, 6, resume=True)
    assert not (place / ".scratch").exists()
    assert files(place) == made and done.report == report(place)
    assert torch.equal(done.model(images(3, 9)), fewer.load(place, small)(images(3, 9)))


def test_a_training_that_only_distortions_leaves_the_model_as_it_was(place):
    x = images(3, 4)
    before = fewer.load(place, small)(x)
    done = again(place, 6, settings={"learning_rate": 100.0})
    assert torch.equal(fewer.load(place, small)(x), before)
    assert done.report.recovery.best_step == 0
    assert "stayed as it was" in (place / "report.html").read_text()


def test_another_model_is_refused(place):
    before = files(place)
    with pytest.raises(FewerError, match=r"is not the one that .* was made from"):
        recover(place, steps=3, time=None, model=small(seed=5), images=images(72))
    assert files(place) == before


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_images_in_a_tensor(place, count):
    with pytest.raises(FewerError, match="too few"):
        recover(place, steps=3, time=None, model=small(), images=images(count))


def test_python_objects_must_be_given_again(place):
    with pytest.raises(FewerError, match="images given in Python"):
        recover(place, steps=3, time=None, model=small())
    with pytest.raises(FewerError, match="Python object"):
        recover(place, steps=3, time=None, images=images(72))


@pytest.mark.parametrize("lost", ["plan.json", "model.safetensors", "curves.npz", "report.json"])
def test_a_run_that_is_not_finished(place, lost):
    (place / lost).unlink()
    with pytest.raises(FewerError, match=r"holds no compressed model yet|is no finished run"):
        again(place)


def test_quality_on_labels_is_shown_after_it(tmp_path):
    x = images(16, 3)
    quality = lambda model: {"mean output": float(model(x).detach().mean())}  # noqa: E731
    place = tmp_path / "run"
    settings = quick(compensation="none", calibration=60, heldout=12)
    fewer.compress(small(), images(72), "weights=40%", settings=settings, out=place, quality=quality)
    done = again(place, quality=quality)
    shown = next(row.value for row in done.report.verdict.quality if row.name == "mean output")
    assert shown == pytest.approx(quality(done.model)["mean output"])


class Folder:
    def __init__(self, place: Path, count: int) -> None:
        self.place = place
        place.mkdir()
        rng = np.random.default_rng(0)
        for index in range(count):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(place / f"{index}.png")


def shared(a: Samples, b: Samples) -> bool:
    """Whether any image is in both."""
    return bool((torch.cdist(a.batch().flatten(1), b.batch().flatten(1)) < 1e-4).any())


def test_unused_held_out_files_choose_and_all_others_judge(tmp_path):
    from fewer.engine.prepare import prepare
    from fewer.engine.views import views_of

    Folder(tmp_path / "photos", 40)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    prepared = prepare(small(), str(tmp_path / "photos"), quick())
    views = views_of(prepared, str(tmp_path / "photos"))
    assert len(prepared.heldout) == 4 and bool(views.judges.all()) and len(views.choosing) in (5, 6)
    assert not shared(views.choosing, prepared.heldout) and not shared(views.choosing, prepared.calibration)


def test_images_that_taught_are_neither_those_that_chose_nor_the_held_out_ones(tmp_path):
    from fewer.data.images import list_images, split_files
    from fewer.engine.prepare import prepare
    from fewer.engine.views import views_of

    Folder(tmp_path / "photos", 20)
    settings = quick()
    net = small()
    prepared = prepare(net, str(tmp_path / "photos"), settings)
    views = views_of(prepared, str(tmp_path / "photos"))
    paths = list_images(tmp_path / "photos")
    held = split_files(paths, [p.name for p in paths], "heldout")
    taught = views.training.files
    assert len(taught) == 15 and not set(taught) & set(held)
    # of the held-out files some judge the run, and the others choose
    assert len(prepared.heldout) == 4 and 1 <= int(views.judges.sum()) <= 2 and len(views.choosing) >= 2
    assert set(prepared.heldout.files) <= set(held)
    assert not shared(views.choosing, prepared.heldout[views.judges])
    assert not shared(views.choosing, prepared.calibration)
    few = prepare(net, str(tmp_path / "photos"), settings.model_copy(update={"heldout": 12}))
    assert not views_of(few, str(tmp_path / "photos")).training.whole


def test_a_run_remembers_its_images_and_forgets_nothing_else(tmp_path):
    Folder(tmp_path / "photos", 12)
    place = tmp_path / "run"
    fewer.compress(small(), str(tmp_path / "photos"), "weights=40%", settings=quick(), out=place)
    assert recover(place, None, steps=3, model=small()).report.recovery.images == 9
    assert json.loads((place / "recipe.json").read_text())["meta"]["recovery"]["steps"] == 3
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(FewerError, match="does not exist"):
        recover(place, None, steps=3, model=small())
    Folder(tmp_path / "others", 3)
    with pytest.raises(FewerError, match="holds 3 images: too few"):
        recover(place, None, steps=3, model=small(), images=str(tmp_path / "others"))


def test_channels_that_were_removed_stay_removed(tmp_path):
    place, settings = tmp_path / "run", quick(pattern="columns", compensation="none", calibration=60, heldout=12)
    fewer.compress(mobile(), images(72), "flops=70%", settings=settings, out=place)
    shapes = {k: v.shape for k, v in fewer.load(place, mobile).state_dict().items()}
    assert sum(s.numel() for s in shapes.values()) < sum(v.numel() for v in mobile().state_dict().values())
    done = recover(place, None, steps=40, model=mobile(), images=images(72), settings={"learning_rate": 5e-3})
    loaded, x = fewer.load(place, mobile), images(3, 5)
    assert {k: v.shape for k, v in loaded.state_dict().items()} == shapes
    assert torch.equal(loaded(x), done.model(x))
    assert done.report.recovery.best_step > 0


def test_least_squares_on_more_images_comes_first(tmp_path):
    Folder(tmp_path / "photos", 60)
    run, photos = tmp_path / "run", str(tmp_path / "photos")
    fewer.compress(small(), photos, "weights=30%", settings=quick(calibration=8, heldout=15), out=run)
    tiny = {"learning_rate": 1e-9}  # training changes nothing
    alone = recover(run, None, steps=1, views=0, model=small(), settings=tiny, out=tmp_path / "no").report.recovery
    assert alone.refitted == 0 and alone.after == pytest.approx(alone.before, rel=1e-3)
    done = recover(run, None, steps=1, views=300, model=small(), settings=tiny, out=tmp_path / "yes")
    recovery = done.report.recovery
    assert recovery.refitted == 300 and recovery.after < 0.9 * recovery.before
    assert recovery.points[1][1] < recovery.points[0][1]
    assert "Least squares on 300 views" in (tmp_path / "yes" / "report.html").read_text()
    for name, mask in load_masks(run).items():
        assert torch.equal(mask, load_masks(tmp_path / "yes")[name])
        assert bool((done.model.get_submodule(name).weight[~mask] == 0).all())
    x = images(3, 5)
    assert torch.equal(fewer.load(tmp_path / "yes", small)(x), done.model(x))


def test_a_run_without_repair_gets_no_least_squares(place):
    assert again(place, 2).report.recovery.refitted == 0


def test_least_squares_that_do_not_help_are_not_kept(tmp_path, monkeypatch):
    from fewer.engine import refit as room

    real = room.refit

    def clumsy(prepared, settings, student, *args, **kwargs):
        """Fits every layer, and spoils the last one."""
        real(prepared, settings, student, *args, **kwargs)
        with torch.no_grad():
            student.fc.bias.add_(100.0)

    monkeypatch.setattr("fewer.verbs.recover.refit", clumsy)
    place = tmp_path / "run"
    fewer.compress(small(), images(400), "weights=40%", settings=quick(calibration=20, heldout=40), out=place)
    done = recover(place, None, steps=1, views=8, model=small(), images=images(400), settings={"learning_rate": 1e-9})
    assert done.report.recovery.refitted == 0
    assert done.report.recovery.after == pytest.approx(done.report.recovery.before, rel=1e-3)
