"""Links in the place of what quick verbs find; ``tests/fuzz/links.py`` does it for every verb and every place."""

from __future__ import annotations

import pytest

from tests.fuzz.kills import VERBS
from tests.fuzz.links import KINDS, check_link, places_of

QUICK = ("recover", "study-export", "private-compile-overwrite")


@pytest.mark.parametrize("name", QUICK)
def test_nothing_behind_a_link_changes(tmp_path, name):
    verb, base = VERBS[name], tmp_path / "base"
    base.mkdir()
    verb.prepare(base)
    places = [place for place in places_of(base) if place.rpartition("/")[2] in MEANT]
    assert places
    for number, place in enumerate(places):
        kind = KINDS[number % len(KINDS)]
        assert not check_link(verb, base, tmp_path / "try", place, kind, False), place


MEANT = (".lock", "log.jsonl", "recipe.json", ".next", "model.safetensors", "study.sqlite", "public.json", "run")
