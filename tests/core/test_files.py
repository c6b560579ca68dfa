"""A folder without permission is told, wherever it stands in a tree."""

import pytest
from tests.support.closed import refuse_to_list

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text, files_below, refuse_inputs


@pytest.mark.parametrize("closed", [".", "a", "a/deeper"])
def test_a_folder_without_permission_is_told(tmp_path, monkeypatch, closed):
    (tmp_path / "a" / "deeper").mkdir(parents=True)
    (tmp_path / "a" / "deeper" / "1.txt").touch()
    refuse_to_list(monkeypatch, tmp_path / closed)
    with pytest.raises(FewerError, match=r"no permission to read .*; change its permissions"):
        files_below(tmp_path)


def test_linked_folders_are_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").touch()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert files_below(tmp_path) == [tmp_path / "a" / "1.txt"]


def test_links_in_a_circle_are_no_error_of_their_own(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    refuse_inputs([tmp_path / "loop" / "a"], [tmp_path / "b"])
    with pytest.raises(FewerError, match="symbolic link"):
        atomic_write_bytes(tmp_path / "loop" / "a", b"x")


def test_a_name_that_is_no_text_cannot_be_written_and_that_is_told(tmp_path):
    with pytest.raises(FewerError, match=r"no valid UTF-8 \(near 'caf\\udce9'\)"):
        atomic_write_text(tmp_path / "config.toml", "caf\udce9")
    assert not list(tmp_path.iterdir())
