"""Folders to try commands with: written whole, never over somebody's files, and fit for the verbs that name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.cli import demo_data
from fewer.cli.flags import Shared
from fewer.core.errors import FewerError
from fewer.data.images import list_images
from fewer.data.photos import real_photos


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder; that of the test holds a model and photos."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_photos_are_those_of_the_packages(fewer, place: Path) -> None:
    done = fewer("demo", "photos", "--out", str(place / "photos"))
    assert done.code == 0
    assert {path.name for path in list_images(place / "photos")} == {photo.path.name for photo in real_photos()}
    assert [path.name for path in place.iterdir()] == ["photos"]  # nothing temporary is left


def test_digits_lie_in_a_folder_for_each_class(fewer, place: Path) -> None:
    out = place / "a" / "digits"
    told = json.loads(fewer("demo", "digits", "--out", str(out), "--json").out)
    assert told["files"] == 1000 == len(list_images(out))
    assert sorted(path.name for path in out.iterdir()) == [str(digit) for digit in range(10)]
    assert (out / "7" / "00036.png").is_file()  # docs/private.md asks for it


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--dry-run"]])
def test_files_that_are_there_stay(fewer, place: Path, flags: list[str]) -> None:
    mine = place / "photos" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = fewer("demo", "photos", "--out", str(mine.parent), *flags)
    assert done.code == 2
    assert "left as it is" in done.err
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_a_dry_run_writes_nothing(fewer, place: Path) -> None:
    for name in demo_data.DATA:
        assert fewer("demo", name, "--out", str(place / name), "--dry-run").code == 0
    assert not list(place.iterdir())


def test_what_failed_halfway_is_gone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path, seed: int, progress: object) -> None:
        (folder / "one.png").write_bytes(b"")
        raise FewerError("no package")

    monkeypatch.setitem(demo_data.DATA, "photos", (half, "photos"))
    with pytest.raises(FewerError, match="no package"):
        demo_data.demo_data("photos", Shared(out=str(place / "photos")))
    assert not list(place.iterdir())


def test_a_folder_that_is_missing_names_the_way(fewer, place: Path) -> None:
    done = fewer("select", str(place / "none"), "--budget", "labels=3")
    assert done.code == 2
    assert "fewer demo photos" in done.err


def test_what_means_nothing_to_data_is_refused(fewer, place: Path) -> None:
    done = fewer("demo", "photos", "--budget", "weights=50%", "--out", str(place / "photos"))
    assert done.code == 2
    assert not list(place.iterdir())
