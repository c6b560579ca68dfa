"""Videos are files of pictures, and not lists of other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.video import check_video, frame_rate, mixed_rates, step_of, video_silhouettes

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


def written(place: Path, rate: float, every: int = 1) -> Path:
    """A person who walks through the picture within a second and a half."""
    cv2 = pytest.importorskip("cv2", reason="needs the [video] extra")
    out = cv2.VideoWriter(str(place), cv2.VideoWriter_fourcc(*"MJPG"), rate, (240, 160))
    for t in range(0, 80, every):
        frame = np.full((160, 240, 3), 60, np.uint8)
        frame[30:140, 10 + 2 * t : 30 + 2 * t + t % 20] = 220
        out.write(frame)
    out.release()
    return place


def test_videos_of_many_frames_a_second_are_looked_at_as_often_as_others(tmp_path: Path) -> None:
    slow, fast = written(tmp_path / "25.avi", 25, 2), written(tmp_path / "50.avi", 50)
    assert frame_rate(fast) == 50 and step_of(50) == 2
    first, second = video_silhouettes(slow), video_silhouettes(fast)
    assert first.shape == second.shape == (40, 64, 64)
    assert ((first > 127) != (second > 127)).mean() < 0.05
    assert mixed_rates([slow, fast]) == ""


def test_rates_that_differ_are_told(tmp_path: Path) -> None:
    places = [written(tmp_path / "a.avi", 25), written(tmp_path / "b.avi", 15)]
    assert mixed_rates(places) == "videos have 15 to 25 frames a second"
    (tmp_path / "c.avi").write_bytes(b"no video")
    assert mixed_rates([*places, tmp_path / "none.avi"]) == "" == mixed_rates(places[:1])
