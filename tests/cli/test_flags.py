"""Flags are made from settings: one per field, with its words, and None until it is given."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest
from pydantic import Field

from fewer.cli.flags import Shared, cpu_only, flags_of, given
from fewer.core.errors import FewerError
from fewer.core.strict import StrictSettings


class Paint(StrictSettings):
    """Settings of a made-up verb."""

    colour: str = Field(default="red", description="Of the wall.", json_schema_extra={"group": "Look"})
    layers: int = Field(default=2, description="One upon the other.")
    dry: bool = Field(default=False, description="Between the layers.", json_schema_extra={"shown": "no"})
    rooms: tuple[str, ...] = Field(default=(), description="Which ones.")
    seed: int = 0


def parameters() -> dict:
    return {one.name: get_args(one.type)[1] for one in fields(flags_of(Paint, "PaintFlags"))}


def test_a_flag_has_the_words_the_group_and_the_default_of_its_field():
    found = parameters()
    assert set(found) == {"colour", "layers", "dry", "rooms"}  # the seed is one of the flags that all verbs share
    assert found["colour"].help == "Of the wall. [red]" and found["dry"].help == "Between the layers. [no]"
    assert {group.name for group in found["colour"].group} == {"Look"}
    assert {group.name for group in found["layers"].group} == {"Settings"}


def test_only_what_was_given_counts_and_the_shared_flags_with_it():
    flags = flags_of(Paint, "PaintFlags")
    assert given(flags(), Shared()) == {}
    assert given(flags(colour="blue"), Shared(seed=3)) == {"colour": "blue", "seed": 3}
    assert Paint.of(given(flags(layers=5), Shared())).layers == 5


def test_a_verb_of_the_cpu_refuses_another_device():
    cpu_only(Shared())
    cpu_only(Shared(device="cpu"))
    with pytest.raises(FewerError, match="cuda"):
        cpu_only(Shared(device="cuda"))
