"""Public functions name few things; what else they take is typed, checked, and told when it is misspelt."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.core.options import RunOptions
from fewer.distillation.recover import RecoverySettings
from fewer.engine.choices import Choices, CompressOptions, RecoverOptions, SenseOptions
from fewer.engine.settings import Settings
from fewer.selection.settings import SelectOptions, SelectSettings
from fewer.timing.settings import BenchChoices, BenchSettings
from fewer.verbs import compress as compress_module
from fewer.verbs import recover as recover_module
from fewer.verbs import select as select_module
from fewer.verbs.bench import BenchOptions

MOST = 11
"""Names in the signature of a public function, ``**options`` counted once; `export` has the most."""

PUBLIC = [name for name in fewer.__all__ if inspect.isfunction(getattr(fewer, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_signature_fits_on_a_screen(name: str) -> None:
    assert len(inspect.signature(getattr(fewer, name)).parameters) <= MOST


@pytest.mark.parametrize(
    ("options", "own", "settings"),
    [
        (CompressOptions, compress_module.OWN, Settings.model_fields),
        (SenseOptions, (*RunOptions.__annotations__, "forward"), Settings.model_fields),
        (SelectOptions, select_module.OWN, SelectSettings.model_fields),
        (BenchOptions, ("calibration", "progress"), BenchSettings.model_fields),
        (RecoverOptions, recover_module.ASKED, recover_module.CHOICES),
    ],
    ids=["compress", "sense", "select", "bench", "recover"],
)
def test_what_an_editor_offers_is_what_the_function_takes(options, own, settings) -> None:
    assert set(options.__annotations__) == {*own, *settings}


def test_types_of_settings_are_those_of_the_model() -> None:
    for name, field in Settings.model_fields.items():
        (said,) = [value for key, value in Choices.__annotations__.items() if key == name]
        wanted = str(field.annotation).replace("typing.", "").replace("NoneType", "None")
        told = getattr(said, "__forward_arg__", str(said))
        same = {part.strip("' ") for part in told.replace("Literal[", "").replace('"', "").strip("]").split(",")}
        assert all(part.split(" | ")[0].split("[")[0].strip("]") in wanted for part in same), (name, told, wanted)


def test_every_setting_of_a_recovery_can_be_given_by_name() -> None:
    assert {field.name for field in fields(RecoverySettings)} - {"seconds", "steps"} == set(recover_module.CHOICES)
    assert set(BenchChoices.__annotations__) == set(BenchSettings.model_fields)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fewer.compress(nn.Linear(2, 2), torch.ones(4, 2), "weights=50%", patern="2:4"), "mean 'pattern'"),
        (lambda: fewer.sense(nn.Linear(2, 2), torch.ones(4, 2), out="x", sed=1), "did you mean 'seed'"),
        (lambda: fewer.select("pool", "labels=3", out="x", bach=3), "did you mean 'batch'"),
        (lambda: fewer.bench(nn.Linear(2, 2), torch.ones(1, 2), round=3), "did you mean 'rounds'"),
        (lambda: fewer.recover("run", learning_rat=0.1), "did you mean 'learning_rate'"),
        (lambda: fewer.recover("run", settings={"rate": 0.1}), "knows no 'rate'"),
    ],
    ids=["compress", "sense", "select", "bench", "recover", "recover by settings"],
)
def test_a_wrong_name_has_its_neighbour(call, words: str) -> None:
    with pytest.raises(FewerError, match=words):
        call()


def test_single_settings_go_over_the_object() -> None:
    few = {"calibration": 8, "sensing": 2, "heldout": 4, "backend": "serial", "additivity": 0, "baselines": ()}
    net, images = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(16, 8)
    run = fewer.compress(net, images, "weights=50%", settings=Settings(**few, seed=1), seed=5)
    assert run.report.seed == 5 and run.report.data.calibration == 8


def test_what_nobody_gave_is_still_not_given() -> None:
    """A budget in time chooses patterns only where none was given; a changed seed is no given pattern."""
    changed = Settings(sensing=4).changed({"seed": 3})
    assert changed.model_fields_set == {"sensing", "seed"}
    assert changed.for_metrics(["latency"]).precisions == ("fp32", "bf16", "int8")


def test_every_verb_has_its_function() -> None:
    from fewer.cli.app import VERBS

    others = {"eval": ["evaluate"], "list": ["list_names"], "info": ["info", "match_table"]}
    for verb in set(VERBS) - {"demo"}:  # a demo is a command to look at
        found = others.get(verb, [verb]) if verb not in ("private", "study") else [n for n in PUBLIC if f"{verb}_" in n]
        assert found and set(found) <= set(PUBLIC), verb


def test_dir_shows_public_names_alone() -> None:
    assert dir(fewer) == sorted(fewer.__all__)


def test_results_are_short_to_look_at() -> None:
    """What a person gets who types the name of a result: some lines, and the same in a notebook."""
    from fewer.core.display import Shown, Told
    from fewer.tasks.classify.evaluation import Evaluation
    from fewer.timing.result import BenchResult, Row

    one = Row(name="a", label="<torch>", wall_ms=[2.0] * 5, cpu_ms=[2.0] * 5, runtime="torch", precision="fp32",
              kind="peer", threads=1)  # fmt: skip
    found = BenchResult(model="toy", input_shapes=[[1, 3]], rounds=5, rows=[one] * 40)
    assert len(repr(found).splitlines()) == 42 and "&lt;torch&gt;" in found._repr_html_()
    assert issubclass(Evaluation, Told) and not issubclass(Evaluation, Shown)
