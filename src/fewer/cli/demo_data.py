"""Folders of data to try the commands of the documentation with: ``fewer demo photos`` and its like."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fewer.cli.flags import Shared
from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error

if TYPE_CHECKING:
    from fewer.core.progress import Progress

__all__ = ["DATA", "demo_data"]


def _photos(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.data.photos import real_photos

    for photo in real_photos():
        shutil.copyfile(photo.path, folder / photo.path.name)


def _digits(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.tasks.classify.sets import write_mnist

    write_mnist(folder, count=1000, seed=seed)


def _lesions(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.tasks.segment.simulate import Lesions

    Lesions(count=40, seed=seed, size=(96, 96)).write(folder)


def _heads(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.tasks.segment.adapt_demo import write_heads

    write_heads(folder, seed)


def _streets(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.tasks.detect3d.simulator import Streets

    Streets(seed=seed).write(folder, 40, progress=progress)


def _walkers(folder: Path, seed: int, progress: Progress) -> None:
    from fewer.tasks.gait.simulator import Walkers

    Walkers(seed=seed).write(folder, 10, progress=progress)


DATA: dict[str, tuple[Callable[[Path, int, Progress], None], str]] = {
    "photos": (_photos, "real photos, for every command with --images photos/"),
    "digits": (_digits, "1,000 real digits of MNIST, a folder for each class"),
    "lesions": (_lesions, "40 simulated skin lesions with masks"),
    "heads": (_heads, "simulated heads: T1-like with masks, T2-like without"),
    "streets": (_streets, "40 simulated LiDAR scans of streets, in KITTI's layout"),
    "walkers": (_walkers, "silhouettes of 10 simulated walkers"),
}
"""Every set of data: what writes it, and what it is."""


def demo_data(name: str, shared: Shared) -> int:
    """Write one of them, under its own name or to ``--out``; whole or not at all, and never over other files."""
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would

    write, what = DATA[name]
    place = Path(shared.out or name)
    _refuse(place)
    if shared.dry_run:
        return say_would([f"would write {place}/: {what}"], shared.json)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise explain_os_error(error, place, "make the folder") from None
    try:
        write(fresh, shared.seed or 0, terminal_progress())
        fresh.chmod(0o777 & ~_umask())  # a temporary folder is for its owner alone
        fresh.replace(place)
    except OSError as error:
        raise explain_os_error(error, place) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    files = sum(path.is_file() for path in place.rglob("*"))
    if shared.json:
        as_json({"folder": str(place), "files": files, "what": what})
    else:
        print(f"{place}/ holds {files} files: {what}")
    return 0


def _refuse(place: Path) -> None:
    """What stands there may be somebody's own images: it is not replaced, not even with ``--overwrite``."""
    try:
        taken = place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir())))
    except OSError as error:
        raise explain_os_error(error, place, "read") from None
    if taken:
        raise FewerError(f"{place} is there already and is left as it is; name another folder with --out")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
