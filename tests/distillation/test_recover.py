"""The loop: it learns, stops in time, keeps the best, and goes on as if it had never stopped."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.data.crops import TensorViews
from fewer.distillation.blocks import find_blocks
from fewer.distillation.recover import RecoverySettings, TeacherStudent, train_student
from fewer.distortion.outputs import Reference, output_tensors
from fewer.tokens.blocks import merge_after, merges_of
from fewer.training.constrained import Held
from fewer.training.history import Fit
from tests.tiny import TINY, tiny


def pruned(name: str, precision: str = "fp32", share: float = 0.6):
    """A teacher, a student of which the smallest weights are gone, and images: to learn from and to choose by."""
    teacher, example = tiny(name)
    student, held, names = copy.deepcopy(teacher), {}, []
    with torch.no_grad():
        for layer, module in student.named_modules():
            if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                continue
            names.append(layer)
            if (teacher is not student and layer == "second" and name == "tied") or module.weight.numel() < 8:
                continue
            weight = module.weight
            mask = weight.abs() > weight.abs().flatten().kthvalue(max(1, int(share * weight.numel()))).values
            weight.mul_(mask)
            held[layer] = Held(mask, precision)
    make = torch.Generator().manual_seed(1)
    images = torch.randn(72, *example.shape[1:], generator=make)
    with torch.no_grad():
        reference = Reference([teacher(images[64:])])
    models = TeacherStudent(teacher, student, held, find_blocks(teacher, names, example), reference)
    views = TensorViews(images[:64], 0)

    def validate(model: nn.Module) -> float:
        with torch.no_grad():
            return float(reference.change(0, model(images[64:])).mean())

    return models, lambda step: views.draw(step, 8), validate


# of one linear layer on white noise the weights that stay are the best there are already
@pytest.mark.parametrize("name", [name for name in TINY if name != "never-called"])
def test_every_tiny_net_gets_better_on_images_that_taught_nothing(name):
    models, draw, validate = pruned(name)
    before = {n: m.weight.detach().clone() for n, m in models.student.named_modules() if n in models.held}
    teacher = {k: v.clone() for k, v in models.teacher.state_dict().items()}
    start = validate(models.student)
    fit = train_student(models, RecoverySettings(steps=40, learning_rate=0.02), draw, validate)
    assert validate(models.student) == pytest.approx(fit.best_score, rel=1e-4)
    assert fit.best_score < 0.97 * start, fit.history
    weights = {layer: models.student.get_submodule(layer).weight for layer in models.held}
    assert all(bool((weights[layer][~held.mask] == 0).all()) for layer, held in models.held.items())
    # what is in no block may be as it was: the best state can be one from the time when only blocks learned
    assert any(not torch.equal(weight, before[layer]) for layer, weight in weights.items())
    assert all(torch.equal(v, teacher[k]) for k, v in models.teacher.state_dict().items())
    assert not any(p.requires_grad for p in models.student.parameters())


def test_a_layer_that_never_runs_stays_as_it_was():
    models, draw, validate = pruned("never-called")
    before = models.student.auxiliary.weight.detach().clone()
    train_student(models, RecoverySettings(steps=3), draw, validate)
    assert torch.equal(models.student.auxiliary.weight, before)


def test_batchnorm_keeps_its_statistics():
    models, draw, validate = pruned("conv")
    before = {k: v.clone() for k, v in models.student.state_dict().items() if "running" in k or "num_batches" in k}
    train_student(models, RecoverySettings(steps=10, learning_rate=0.02), draw, validate)
    assert before and all(torch.equal(v, models.student.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_low_precisions_learn_while_they_are_rounded(precision):
    models, draw, validate = pruned("vit", precision)
    models.activations.update({"int8": [models.student.blocks[0].mlp.fc1]} if precision == "int8" else {})
    fit = train_student(models, RecoverySettings(steps=30, learning_rate=0.02), draw, validate)
    assert fit.best_step > 0
    weight = models.student.blocks[0].mlp.fc1.weight
    levels = {"bf16": None, "int8": 255, "int4": 15}[precision]
    if levels is None:
        assert torch.equal(weight, weight.bfloat16().float())
    else:
        assert max(len(row.unique()) for row in weight) <= levels


def test_the_same_steps_give_the_same_weights():
    states = []
    for _ in range(2):
        models, draw, validate = pruned("conv")
        train_student(models, RecoverySettings(steps=6, learning_rate=0.01), draw, validate)
        states.append(models.student.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_interrupted_and_resumed_is_the_same_as_never_stopped(tmp_path: Path, precision):
    course = RecoverySettings(steps=12, learning_rate=0.02, validations=4)
    models, draw, validate = pruned("vit", precision)
    whole = train_student(models, course, draw, validate)
    wanted = models.student.state_dict()

    models, draw, validate = pruned("vit", precision)
    place = tmp_path / "recover.safetensors"

    def interrupted(step: int) -> torch.Tensor:
        if step == 7:
            raise KeyboardInterrupt
        return draw(step)

    with pytest.raises(KeyboardInterrupt):
        train_student(models, course, interrupted, validate, checkpoint=place, key="k")
    assert [p.name for p in tmp_path.iterdir()] == [place.name]
    models, draw, validate = pruned("vit", precision)
    fit = train_student(models, course, draw, validate, checkpoint=place, key="k")
    assert all(torch.equal(v, models.student.state_dict()[k]) for k, v in wanted.items())
    assert [e["score"] for e in fit.history] == [e["score"] for e in whole.history]


def test_what_came_before_the_first_step_outlives_an_interruption(tmp_path: Path):
    place = tmp_path / "recover.safetensors"
    models, draw, validate = pruned("conv")
    before = Fit(seconds=7.0, better="lower", facts={"fitted": 200})
    before.note(models.student, 9.0)
    before.note(models.student, validate(models.student))

    def stop(step: int) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(models, RecoverySettings(steps=4), stop, validate, start=before, checkpoint=place, key="k")
    models, draw, validate = pruned("conv")
    fit = train_student(models, RecoverySettings(steps=4), draw, validate, checkpoint=place, key="k")
    assert fit.facts["fitted"] == 200 and fit.began == 7.0 and fit.seconds > 7.0 and fit.improved
    assert [entry["score"] for entry in fit.history[:2]] == [9.0, pytest.approx(before.best_score)]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path):
    place = tmp_path / "recover.safetensors"
    models, draw, validate = pruned("conv")

    def stop(step: int) -> torch.Tensor:
        if step:
            raise KeyboardInterrupt
        return draw(step)

    with pytest.raises(KeyboardInterrupt):
        train_student(models, RecoverySettings(steps=4), stop, validate, checkpoint=place, key="one")
    with pytest.raises(FewerError, match="other settings"):
        train_student(models, RecoverySettings(steps=4), draw, validate, checkpoint=place, key="two")
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(FewerError, match="cannot be read"):
        train_student(models, RecoverySettings(steps=4), draw, validate, checkpoint=place, key="one")


def test_it_stops_in_time_with_the_last_validation_inside():
    models, draw, validate = pruned("conv")
    now = [0.0]

    def slow_draw(step: int) -> torch.Tensor:
        now[0] += 1.0  # a step takes a second
        return draw(step)

    def slow_validate(model: nn.Module) -> float:
        now[0] += 3.0
        return validate(model)

    fit = train_student(models, RecoverySettings(seconds=100), slow_draw, slow_validate, clock=lambda: now[0])
    assert 95 <= now[0] <= 100
    assert 70 <= fit.step <= 90
    assert 3 <= len(fit.history) <= 6  # at most an eighth of the time, the start and the end apart
    assert fit.history[-1]["step"] == fit.step


def test_a_training_that_only_distortions_gives_the_model_back_as_it_was():
    models, draw, validate = pruned("conv")
    before = {k: v.clone() for k, v in models.student.state_dict().items()}
    fit = train_student(models, RecoverySettings(steps=6, learning_rate=100.0), draw, validate)
    assert fit.best_step == 0
    assert all(torch.equal(v, models.student.state_dict()[k]) for k, v in before.items())


def test_errors_that_are_no_longer_finite_are_told():
    models, _, validate = pruned("conv")
    with pytest.raises(FewerError, match="finite"):
        train_student(
            models, RecoverySettings(steps=20), lambda step: torch.full((2, 3, 32, 32), float("nan")), validate
        )


def test_one_output_among_several_is_scaled_by_its_own_energy():
    models, _, _ = pruned("dict-output")
    assert len(models.reference.scale) == len(output_tensors(models.teacher(torch.zeros(1, 3, 32, 32)))) == 2


@pytest.mark.parametrize(
    "wrong",
    [{}, {"seconds": 1.0, "steps": 1}, {"steps": 0}, {"steps": 1, "batch": 0}, {"steps": 1, "learning_rate": 0.0}],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(FewerError):
        RecoverySettings(**wrong)


@pytest.mark.parametrize("alone", [1.0, 0.0])
def test_a_student_that_merges_tokens_learns_block_by_block(alone):
    models, draw, validate = pruned("vit")
    merge_after(models.student, {"blocks.0": 3, "blocks.1": 0}, 1)
    assert any(block.name == "blocks.0" for block in models.blocks)
    start = validate(models.student)
    first = models.student.blocks[0].mlp.fc1.weight.detach().clone()
    fit = train_student(models, RecoverySettings(steps=20, learning_rate=0.01, blocks_first=alone), draw, validate)
    assert fit.best_score < start
    assert not torch.equal(models.student.blocks[0].mlp.fc1.weight, first)
    assert merges_of(models.student) is not None


@pytest.mark.parametrize("method", ["kd", "rkd"])
def test_a_distillation_method_is_added_to_the_error(method):
    losses = {}
    for name in (None, method):
        models, draw, validate = pruned("mlp" if "mlp" in TINY else next(iter(TINY)))
        fit = train_student(models, RecoverySettings(steps=6, blocks_first=0.0, method=name), draw, validate)
        losses[name] = fit.history[-1]["loss"]
    assert losses[method] > losses[None]


def test_a_method_with_parameters_of_its_own_is_told():
    with pytest.raises(FewerError, match="cannot use fitnets, which needs: parameters; use kd"):
        RecoverySettings(steps=1, method="fitnets")
    with pytest.raises(FewerError, match="did you mean 'kd'"):
        RecoverySettings(steps=1, method="kdd")
