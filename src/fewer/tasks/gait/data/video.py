"""Silhouettes of a video file: the person before a still background, by OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.silhouettes import treat_frames

__all__ = ["VIDEOS", "check_video", "frame_rate", "mixed_rates", "step_of", "video_masks", "video_silhouettes"]

_MEMORY = 2**27
"""Bytes of frames that the median is taken of."""
_FLICKER = 0.002
"""How quickly the background learns while somebody may stand before it."""

_USUAL = 25
_ALIKE = 1.1
"""Frame rates within this factor are alike: 24 and 25, or 30 and 29.97."""

VIDEOS = frozenset({".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"})
"""Endings of video files."""


def _opencv() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is told in one sentence
    try:
        import cv2
    except ImportError:
        raise FewerError('videos need OpenCV; install it: pip install "fewer[video]"') from None
    return cv2


def video_masks(path: str | Path, *, warm_up: bool = True, least: float = 0.002) -> Iterator[np.ndarray]:
    """Masks of the largest thing that moves in a video of a still camera.

    The background starts as the median of frames from all over the video, so that whoever is there in the first
    frames is no part of it. Around it, Gaussians for every pixel (Zivkovic, 2004) learn how it flickers; then each
    frame is compared with it. Shadows are left out, small holes closed, and the largest piece is kept.

    Parameters
    ----------
    path
        Video file.
    warm_up
        Learn the background from all frames before the first mask; without it, from the frames before each.
    least
        Share of the picture below which a piece is no person.

    Raises
    ------
    FewerError
        When OpenCV is missing, or the file is no video.
    """
    cv2 = _opencv()
    background = cv2.createBackgroundSubtractorMOG2(history=200, varThreshold=25, detectShadows=True)
    if warm_up:
        still = _median(_frames(cv2, path))
        if still is not None:
            background.apply(still, learningRate=1.0)
        for frame in _frames(cv2, path):
            background.apply(frame, learningRate=_FLICKER)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    for frame in _frames(cv2, path):
        mask = (background.apply(frame, learningRate=0 if warm_up else -1) > 200).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
        if count < 2:
            yield np.zeros(mask.shape, np.uint8)
            continue
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        enough = stats[largest, cv2.CC_STAT_AREA] >= least * mask.size
        yield np.where((labels == largest) & enough, 255, 0).astype(np.uint8)


def _median(frames: Iterator[np.ndarray]) -> np.ndarray | None:
    """Median of frames that are spread evenly over a video of unknown length."""
    kept: list[np.ndarray] = []
    every = 1
    for number, frame in enumerate(frames):
        if number % every == 0:
            kept.append(frame)
        most = max(8, min(64, _MEMORY // max(1, frame.nbytes)))
        if len(kept) > most:
            kept, every = kept[::2], 2 * every
    return np.median(np.stack(kept), 0).astype(np.uint8) if kept else None


_LISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b"[playlist]", b"http:", b"https:", b"rtsp:")
"""How files begin that make a decoder of video open other files, or addresses of the network."""


def check_video(path: str | Path) -> None:
    """Look at the head of a video before a decoder does, which would follow a list to other files and addresses.

    Raises
    ------
    FewerError
        When it is missing, or such a list.

    Examples
    --------
    >>> check_video("no.mp4")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no.mp4 does not exist; give a video file
    """
    if not Path(path).is_file():
        raise FewerError(f"{path} does not exist; give a video file")
    with Path(path).open("rb") as file:
        head = file.read(64)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(_LISTS):
        raise FewerError(f"{path} is a list of other files or addresses, not a video; give the video itself")


def _frames(cv2: Any, path: str | Path) -> Iterator[np.ndarray]:
    check_video(path)
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise FewerError(f"{path} cannot be read as a video")
        while True:
            there, frame = video.read()
            if not there:
                return
            yield frame
    finally:
        video.release()


def step_of(rate: float) -> int:
    """Every how manyth frame of a video is looked at, so that about 25 a second are, as in the field's sets.

    Examples
    --------
    >>> [step_of(rate) for rate in (0.0, 12.5, 25, 30, 50, 60, 240)]
    [1, 1, 1, 1, 2, 2, 10]
    """
    return max(1, round(rate / _USUAL)) if 1 <= rate <= 1000 else 1


def frame_rate(path: str | Path) -> float:
    """Frames a second, as a video file states them; 0 where it does not.

    Raises
    ------
    FewerError
        When OpenCV is missing, or the file is no video.
    """
    cv2 = _opencv()
    check_video(path)
    video = cv2.VideoCapture(str(path))
    try:
        rate = float(video.get(cv2.CAP_PROP_FPS)) if video.isOpened() else 0.0
    finally:
        video.release()
    return rate if 1 <= rate <= 1000 else 0.0


def mixed_rates(places: Iterable[Path]) -> str:
    """Frame rates at which videos among some sequences are looked at, in words, where they differ; else nothing.

    Other files say nothing of their rate, and videos that cannot be read are told elsewhere.

    Examples
    --------
    >>> mixed_rates([Path("a.npz")])
    ''
    """
    videos = [place for place in places if place.suffix.lower() in VIDEOS]
    if len(videos) < 2:
        return ""
    try:
        rates = [rate / step_of(rate) for rate in map(frame_rate, videos) if rate]
    except FewerError:
        return ""
    low, high = min(rates, default=1.0), max(rates, default=1.0)
    return f"videos have {low:g} to {high:g} frames a second" if high > _ALIKE * low else ""


def video_silhouettes(path: str | Path) -> np.ndarray:
    """Silhouettes uint8 (frames, 64, 64) of the person in a video.

    Of videos with many frames a second, every second frame is taken, or fewer (:func:`step_of`): networks that look at
    movement must see it as quick as in their training.

    Raises
    ------
    FewerError
        When nobody moves in it.

    Examples
    --------
    >>> video_silhouettes("walk.mp4").shape  # doctest: +SKIP
    (87, 64, 64)
    """
    step = step_of(frame_rate(path))
    found, empty = treat_frames(islice(video_masks(path), 0, None, step))
    if not len(found):
        raise FewerError(f"nobody moves in {path}: all {empty} frames are background; the camera must stand still")
    return found
