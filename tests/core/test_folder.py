"""What all folders of fewer have in common: a mark, one writer, old content that stays, and nothing of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.core.folder import KINDS, MarkedFolder, finish_exchange
from fewer.core.run import RunFolder
from fewer.core.staging import Staging, write_together
from fewer.selection.folder import QueueFolder
from fewer.study.folder import StudyFolder
from fewer.tasks.folders import results_aside

FOLDERS = (RunFolder, QueueFolder, StudyFolder)


class Notes(MarkedFolder):
    MARK, MAKER, FOLDERS = ".fewer-notes", "fewer notes", frozenset(["drafts"])

    def is_part(self, name: str) -> bool:
        return name.endswith(".txt")


def begun(place, **how) -> Notes:
    notes = Notes(place)
    notes.look()
    notes.hold()
    with notes.taking_over():
        notes.settle()
        notes.begin(**how)
    return notes


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_others_is_refused_and_stays_as_it_is(kind, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FewerError, match=f"is not empty and was not made by {kind.MAKER}; choose another --out"):
        kind.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("other", FOLDERS)
def test_a_folder_is_opened_as_what_it_is(kind, other, tmp_path):
    with other.create(tmp_path / "a"):
        pass
    if kind is other:
        assert kind.open(tmp_path / "a").home == tmp_path / "a"
        return
    with pytest.raises(FewerError, match=f"is a {KINDS[other.MARK]}, not a {KINDS[kind.MARK]}"):
        kind.open(tmp_path / "a")
    with pytest.raises(FewerError, match="was not made by"):
        kind.create(tmp_path / "a")


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_mistake_leaves_no_trace_of_a_folder_that_held_nothing(kind, tmp_path):
    with pytest.raises(FewerError, match="no such images"), kind.create(tmp_path / "new" / "folder"):
        raise FewerError("no such images")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FOLDERS)
def test_there_is_one_writer(kind, tmp_path):
    with kind.create(tmp_path / "a"), pytest.raises(FewerError, match="is in use by process"):
        kind.create(tmp_path / "a")


def test_replaced_content_goes_when_the_new_one_is_whole_and_what_is_not_ours_stays(tmp_path):
    place = tmp_path / "notes"
    with begun(place) as notes:
        (notes.path / "old.txt").write_text("old")
        (notes.path / "drafts").mkdir()
    for name in ("data.csv", "letters"):  # a file and a folder of someone else
        (place / name).mkdir() if name == "letters" else (place / name).write_text("mine")
    with begun(place, overwrite=True) as notes:
        (notes.path / "new.txt").write_text("new")
        assert (place / "old.txt").exists() and not (place / "new.txt").exists()
    assert sorted(path.name for path in place.iterdir()) == [".fewer-notes", "data.csv", "letters", "new.txt"]


def test_interrupted_new_content_is_gone_on_with_or_thrown_away(tmp_path):
    place = tmp_path / "notes"
    with begun(place) as notes:
        (notes.path / "old.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), begun(place, overwrite=True) as notes:
        (notes.path / "new.txt").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), begun(place, resume=True) as notes:
        assert (notes.path / "new.txt").read_text() == "half"
        raise KeyboardInterrupt
    with begun(place, overwrite=True) as notes:
        assert not (notes.path / "new.txt").exists() and (place / "old.txt").exists()


def test_files_that_belong_together_come_together_or_not_at_all(tmp_path):
    with begun(tmp_path / "notes") as notes:
        with pytest.raises(ZeroDivisionError), notes.together():
            (notes.path / "a.txt").write_text("one")
            raise ZeroDivisionError
        assert not (notes.home / "a.txt").exists()
        with notes.together():
            (notes.path / "a.txt").write_text("two")
            assert not (notes.home / "a.txt").exists()
        assert (notes.home / "a.txt").read_text() == "two"


def test_a_reader_finishes_an_exchange_that_a_kill_has_interrupted(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    staging = Staging(tmp_path)
    staging.begin()
    (staging.path / "a.txt").write_text("new")
    (staging.path / ".commit").write_text('{"new": ["a.txt"], "replaced": []}')
    finish_exchange(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "new" and not staging.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_new_files_of_a_folder_inside_come_beside_the_old_ones(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "old.png").write_text("old")
    staging = Staging(tmp_path)
    staging.begin()
    (staging.path / "pictures").mkdir()
    (staging.path / "pictures" / "new.png").write_text("new")
    staging.commit([])
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["new.png", "old.png"]


def test_a_secret_is_never_readable_by_others(tmp_path):
    write_together(tmp_path, {"secret.key": b"1", "public.json": "{}"}, secret=["secret.key"])
    assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "public.json").stat().st_mode & 0o044


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "", ".", "..", ".next", ".edit", "\0", None, 3])
def test_a_note_of_an_exchange_that_names_other_places_moves_nothing(tmp_path, name):
    (tmp_path / "a.txt").write_text("old")
    staging = Staging(tmp_path)
    staging.begin()
    (staging.path / "a.txt").write_text("new")
    for note in ({"new": ["a.txt", name], "replaced": []}, {"new": ["a.txt"], "replaced": [name]}):
        (staging.path / ".commit").write_text(json.dumps(note))
        with pytest.raises(FewerError, match="was not written by fewer"):
            staging.carry_on()
        assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_of_someone_else_under_our_name_is_left_alone(tmp_path: Path) -> None:
    """``.next`` is what builds of web pages are called as well."""
    mine = tmp_path / ".edit" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FewerError, match="is not a folder that fewer made"):
        write_together(tmp_path, {"a.csv": "1"})
    assert mine.read_text() == "mine" and not (tmp_path / "a.csv").exists()
    (tmp_path / ".edit").rename(tmp_path / ".next")
    with pytest.raises(FewerError, match="is not a folder that fewer made"):
        results_aside(tmp_path, [], anew=True, resume=False)
    assert (tmp_path / ".next" / "notes.txt").read_text() == "mine"
    staging = Staging(tmp_path, ".edit")  # what an interrupted process of ours left is thrown away
    staging.begin()
    (staging.path / "half.csv").write_text("1")
    write_together(tmp_path, {"a.csv": "2"})
    assert (tmp_path / "a.csv").read_text() == "2" and not staging.path.exists()
