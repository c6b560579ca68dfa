"""Where a setting comes from: default < preset < file < environment < flag, by kind and never by position."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from fewer.cli.config import preset_names, preset_note, resolve
from fewer.cli.flags import Shared, given
from fewer.cli.setting_flags import SettingFlags
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings


def _toml(text: str) -> Path:
    path = Path("run.toml")
    path.write_text(text)
    return path


def test_each_kind_of_source_beats_the_one_before() -> None:
    file, environment = _toml("correction = 0.3"), {"FEWER_CORRECTION": "0.6"}
    assert Settings().correction not in (0, 0.3, 0.6, 0.9)
    assert resolve({}, environ={})[0] == Settings()
    assert resolve({}, "rd-prune", environ={})[0].correction == 0
    assert resolve({}, "rd-prune", file, environ={})[0].correction == 0.3
    assert resolve({}, "rd-prune", file, environment)[0].correction == 0.6
    assert resolve({"correction": 0.9}, "rd-prune", file, environment)[0].correction == 0.9


def test_what_one_source_leaves_open_comes_from_the_one_below() -> None:
    assert resolve({"sparsities": "none"}, environ={})[0].sparsities == ()
    found, _ = resolve({"seed": 4}, "rd-prune", _toml("search = 3"), {})
    assert (found.seed, found.search, found.score) == (4, 3, "magnitude")


def test_a_file_may_describe_a_whole_run() -> None:
    text = 'model = "net.py:net"\nimages = "photos"\nbudget = ["size=8MB"]\npreset = "rd-prune"\n[settings]\nseed = 3\n'
    found, inputs = resolve({}, config=_toml(text), environ={})
    assert inputs == {"model": "net.py:net", "images": "photos", "budget": ["size=8MB"]}
    assert (found.seed, found.compensation) == (3, "none")


def test_a_preset_flag_beats_the_preset_of_the_file() -> None:
    assert resolve({}, "default", _toml('preset = "rd-prune"'), {})[0] == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SEED", "3", 3),
        ("DAMPING", "0.1", 0.1),
        ("WORKERS", "none", None),
        ("DATA_FREE", "bn", "bn"),
        ("SPARSITIES", "0.3, 0.6", (0.3, 0.6)),
        ("EXCLUDE", "head,blocks.0.*", ("head", "blocks.0.*")),
        ("BASELINES", "none", ()),
    ],
)
def test_variables_of_the_environment_are_read_as_what_they_set(name: str, text: str, value: object) -> None:
    found, _ = resolve({}, environ={f"FEWER_{name}": text})
    assert getattr(found, name.lower()) == value


@pytest.mark.parametrize(
    ("environ", "words"),
    [({"FEWER_SEED": "three"}, "FEWER_SEED"), ({"FEWER_ESTIMATOR": "tailor"}, "FEWER_ESTIMATOR")],
)
def test_a_bad_variable_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(FewerError, match=words):
        resolve({}, environ=environ)


def test_a_bad_value_is_blamed_on_its_own_source() -> None:
    with pytest.raises(FewerError, match=r"run\.toml"):
        resolve({"probes": 3}, "rd-prune", _toml("probes = 0"), {})
    with pytest.raises(FewerError, match="command line"):
        resolve({"probes": 0}, "rd-prune", _toml("probes = 3"), {})


def test_every_setting_has_a_flag_of_its_name() -> None:
    flags = {f.name for f in fields(SettingFlags)} | {"seed", "device"}
    assert flags == set(Settings.model_fields)


def test_every_setting_says_what_it_is_and_what_its_default_means() -> None:
    """A setting is written once: the help is made from its field."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        extra = field.json_schema_extra
        assert isinstance(extra, dict) and extra.get("group"), name
        if field.default is None:
            assert extra.get("shown"), f"None says nothing in the help of {name}"


def test_the_help_states_the_defaults() -> None:
    hints = get_type_hints(SettingFlags, include_extras=True)
    notes = {name: next(m.help for m in hint.__metadata__ if m.help) for name, hint in hints.items()}
    assert notes["probes"].endswith("[4]")
    assert notes["baselines"].endswith("[uniform,lamp]")
    assert notes["workers"].endswith("[one per core]")
    assert notes["damping"].endswith("[0.03]")


def test_only_flags_that_were_given_count() -> None:
    assert given(None, None) == {}
    assert given(SettingFlags(), Shared()) == {}
    assert given(SettingFlags(search=0), Shared(seed=0)) == {"search": 0, "seed": 0}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_says_what_it_is(name: str) -> None:
    resolve({}, name, environ={})
    assert len(preset_note(name)) > 20


@pytest.mark.parametrize("text", ["preset = 3", "model = 3", "images = [1]", "budget = 1.5", "preset = 1979-05-27"])
def test_what_a_file_names_must_be_text(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(FewerError, match="must be a text"):
        resolve({}, None, tmp_path / "c.toml", {})
