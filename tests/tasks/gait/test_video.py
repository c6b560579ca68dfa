"""Videos are files of pictures, and not lists of other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.video import check_video

LISTS = {
    "m3u": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "with a mark": b"\xef\xbb\xbf\n#EXTM3U\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "dash": b'<?xml version="1.0"?><MPD></MPD>',
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_is_not_opened(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.avi").write_bytes(LISTS[kind])
    with pytest.raises(FewerError, match="is a list of other files or addresses"):
        check_video(tmp_path / "a.avi")


def test_a_video_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"RIFF\x00\x00\x00\x00AVI LIST")
    check_video(tmp_path / "a.avi")
