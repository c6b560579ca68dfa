"""Sense, plan, apply: step by step in a run folder, interrupted, resumed, with the wrong model."""

import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.engine.settings import Settings
from tests.engine.test_sense import StopAfter
from tests.support.nets import Small, images, quick, small
from tests.support.other_device import other_device


def state(model):
    return model.state_dict()


def equal(a, b) -> bool:
    return all(torch.equal(v, state(b)[k]) for k, v in state(a).items())


@pytest.mark.parametrize("score", ["obs", "taylor"])
def test_step_by_step_gives_the_model_of_compress(tmp_path, score):
    settings = quick(score=score, allocator="dp")  # a contest may take another plan than the verb plan does
    whole = fewer.compress(small(), images(), "weights=45%", settings=settings)
    fewer.sense(small(), images(), out=tmp_path / "run", settings=settings)
    plan = fewer.plan(tmp_path / "run", "weights=45%", out=tmp_path / "plan.json")
    assert plan.options() == whole.plan.options()
    applied = fewer.apply(tmp_path / "run", tmp_path / "plan.json", model=small(), images=images())
    assert equal(applied.model, whole.model)
    assert equal(fewer.load(tmp_path / "run", Small), whole.model)
    assert applied.report.verdict.met
    # the plan now is the folder's own
    again = fewer.apply(tmp_path / "run", model=small(), images=images())
    assert equal(again.model, whole.model)


def test_another_model_is_refused_and_nothing_is_written(tmp_path):
    fewer.sense(small(), images(), out=tmp_path / "run", settings=quick())
    plan = fewer.plan(tmp_path / "run", "weights=50%")
    files = sorted(p.name for p in (tmp_path / "run").iterdir())
    with pytest.raises(FewerError, match="other weights than the one"):
        fewer.apply(tmp_path / "run", plan, model=small(seed=1), images=images())
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == files
    with pytest.raises(FewerError, match="Python object"):
        fewer.apply(tmp_path / "run", plan, images=images())


def test_plans_of_other_curves_are_refused(tmp_path):
    fewer.sense(small(), images(), out=tmp_path / "a", settings=quick())
    fewer.sense(small(), images(), out=tmp_path / "b", settings=quick(pattern="block:4x4"))
    plan = fewer.plan(tmp_path / "a", "weights=50%")
    with pytest.raises(FewerError):
        fewer.apply(tmp_path / "b", plan, model=small(), images=images())


def test_unreachable_budgets_say_what_can_be_reached(tmp_path):
    fewer.sense(small(), images(), out=tmp_path / "run", settings=quick())
    with pytest.raises(FewerError, match=r"\d"):
        fewer.plan(tmp_path / "run", "weights=1%")
    with pytest.raises(FewerError, match="did you mean 'uniform'"):
        fewer.plan(tmp_path / "run", "weights=50%", allocator="uniforn")


@pytest.mark.parametrize("schedule", ["one-shot", "iterative"])
def test_an_interrupted_compress_resumes_to_the_same_model(tmp_path, schedule):
    settings = quick(schedule=schedule)
    whole = fewer.compress(small(), images(), "weights=50%", settings=settings, out=tmp_path / "whole")
    stop = 2 if schedule == "one-shot" else 5
    with pytest.raises(KeyboardInterrupt):
        fewer.compress(
            small(), images(), "weights=50%", settings=settings, out=tmp_path / "run", progress=StopAfter(stop)
        )
    assert list((tmp_path / "run" / ".scratch").glob("ledger*.jsonl"))
    with pytest.raises(FewerError, match="--resume"):
        fewer.compress(small(), images(), "weights=50%", settings=settings, out=tmp_path / "run")
    run = fewer.compress(small(), images(), "weights=50%", settings=settings, out=tmp_path / "run", resume=True)
    assert equal(run.model, whole.model) and run.plan.to_json() == whole.plan.to_json()
    assert not (tmp_path / "run" / ".scratch").exists()
    files = [sorted(p.name for p in (tmp_path / d).iterdir()) for d in ("run", "whole")]
    assert files[0] == files[1]
    for name in ("model.safetensors", "curves.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_sensing_is_not_done_twice(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fewer.sense(small(), images(), out=tmp_path / "run", settings=quick(), progress=StopAfter(2))
    run = fewer.sense(small(), images(), out=tmp_path / "run", settings=quick(), resume=True)
    assert run.facts["resumed"] == 2


def test_settings_go_through_the_folder_unchanged(tmp_path):
    settings = quick(
        pattern="block:4x4",
        damping=0.02,
        correction=1.0,
        exclude=("head",),
        sparsities=(0.5, 1.0),
        reduction="cvar:0.2",
        crops=0,
        workers=1,
        baselines=("uniform", "lamp"),
        data_free=None,
    )
    fewer.sense(small(), images(), out=tmp_path / "run", settings=settings)
    config = RunFolder.open(tmp_path / "run").read_config()
    assert Settings.of(config["settings"]) == settings
    (tmp_path / "own.toml").write_text('pattern = "2:4"\nsensing = 3\nexclude = ["fc"]\ndamping = 1\n')
    assert Settings.from_toml(tmp_path / "own.toml", sensing=4) == Settings(
        pattern="2:4", sensing=4, exclude=("fc",), damping=1.0
    )


def test_a_report_is_written_again(tmp_path):
    fewer.compress(small(), images(), "weights=50%", settings=quick(), out=tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    page.unlink()
    assert fewer.report(tmp_path / "run") == page and page.exists()
    with pytest.raises(FewerError):
        fewer.report(tmp_path / "nothing")


def test_saving_later_is_saving_at_once(tmp_path):
    run = fewer.compress(small(), images(), "weights=50%", settings=quick())
    folder = run.save(tmp_path / "run")
    assert equal(fewer.load(folder, Small), run.model) and run.folder == folder
    with pytest.raises(FewerError):
        run.save(tmp_path / "run")
    run.save(tmp_path / "run", overwrite=True)


def test_a_plan_is_carried_out_on_another_device_as_on_the_cpu(tmp_path):
    net, shown = small(), images()
    fewer.sense(net, shown, out=tmp_path / "run", settings=quick())
    plan = fewer.plan(tmp_path / "run", "weights=50%")
    here = fewer.apply(tmp_path / "run", plan, model=net, images=shown)
    expected = {name: value.clone() for name, value in here.model.state_dict().items()}
    with other_device():
        there = fewer.apply(tmp_path / "run", plan, model=net, images=shown, device="meta")
        assert all(torch.equal(value.to("cpu"), expected[name]) for name, value in there.model.state_dict().items())
    assert there.report.verdict.distortion == pytest.approx(here.report.verdict.distortion)
