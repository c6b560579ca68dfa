"""``fewer demo``: the main job on a real pretrained Vision Transformer and real photos, without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fewer.cli.flags import Shared, given
from fewer.cli.setting_flags import SettingFlags

__all__ = ["demo"]

FOLDER = "demo-run"


def demo(
    model: str = "fewer/dinov2-small",
    /,
    *,
    budget: str = "weights=50%",
    settings: SettingFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Compress a real pretrained Vision Transformer to half its weights, with real photos; no network needed.

    The result is a run folder like that of any other run. A demo that was interrupted goes on where it stopped.

    Parameters
    ----------
    model
        fewer/dinov2-small or fewer/mobilenet-v2.
    budget
        As in: fewer compress --help
    """
    from fewer.cli.config import resolve
    from fewer.cli.work import run_compress
    from fewer.data.photos import real_photos

    shared = shared or Shared()
    chosen, _ = resolve(given(settings, shared), preset="demo")
    if shared.out is None and not shared.resume:
        # the demo's own folder may be used again: a finished demo is replaced, an interrupted one goes on
        finished = (Path(FOLDER) / "report.json").exists()
        shared = replace(shared, overwrite=finished, resume=not finished)
    photos = [photo.path for photo in real_photos()]
    return run_compress(model, photos, budget, chosen, shared, shared.out or FOLDER)
