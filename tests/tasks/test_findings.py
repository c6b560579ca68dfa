"""The copy that a doctor leaves: it is there as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.findings import Repaired, whole_copy


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    out = tmp_path / "copy"
    (tmp_path / ".copy.part").mkdir()
    (tmp_path / ".copy.part" / "half").write_text("of a process that was killed")
    for error in (ValueError("it goes wrong"), KeyboardInterrupt()):
        with pytest.raises(type(error)), whole_copy(out) as place:
            (place / "a").write_text("a")
            raise error
        assert list(tmp_path.iterdir()) == []
    with whole_copy(out) as place:
        assert not out.exists()
        done = Repaired(out, 1, (), ("b: it is empty",)).note(place)
    assert [path.name for path in out.iterdir()] == ["changes.json"] and done.folder == out
    with pytest.raises(FewerError, match="exists already"), whole_copy(out):
        pass


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(FewerError), whole_copy(tmp_path / "copy"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
