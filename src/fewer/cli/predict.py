"""``fewer predict``: a mask for every image."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fewer.cli.flags import Shared
from fewer.core.errors import FewerError

__all__ = ["predict"]


def predict(
    run: str,
    images: str,
    /,
    *,
    task: str = "segment",
    overlap: float = 0.5,
    overlay: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> int:
    """Write a mask for every image of a folder, on the voxels and in the place of the image.

    Parameters
    ----------
    run
        A run folder of fewer train, or of fewer compress on one.
    images
        A folder of images, a data set, or one image.
    task
        segment
    overlap
        Of neighbouring windows, 0 to below 1: less is quicker.
    overlay
        Write pictures with outlines as well, into OUT/overlays.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.tasks import open_task

    shared = shared or Shared()
    if shared.out is None:
        raise FewerError("where to? give a folder for the masks with --out")
    if shared.dry_run:
        print(f"dry run: would write masks of {images} to {shared.out}")
        return 0
    done = open_task(task).predict(
        run,
        images,
        out=shared.out,
        overlap=overlap,
        overlay=overlay,
        overwrite=shared.overwrite,
        resume=shared.resume,
        device=shared.device or "cpu",
        progress=terminal_progress(),
    )
    if shared.json:
        skipped = [{"file": str(path), "reason": reason} for path, reason in done.skipped]
        as_json({"folder": shared.out, "masks": [str(path) for path in done.masks], "skipped": skipped})
        return 0
    print(f"{len(done.masks)} masks in {shared.out}")
    for path, reason in done.skipped:
        print(f"skipped {path}: {reason}")
    return 0
