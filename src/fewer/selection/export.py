"""The queue for annotation tools: Label Studio tasks, COCO, the XML of CVAT, or a plain folder to put masks into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fewer.core.errors import FewerError, near_match
from fewer.core.files import atomic_write_text, explain_os_error, flush_file
from fewer.data.decode import open_image
from fewer.selection.cvat import write_cvat
from fewer.selection.plan import Asked

__all__ = ["FORMATS", "can_open", "check_formats", "export"]

FORMATS = {
    "labelstudio": "labelstudio.json: tasks for Label Studio's import",
    "coco": "coco.json: images without annotations yet, for CVAT and other COCO tools",
    "cvat": "cvat.xml: the same in CVAT's own format",
    "masks": "annotate/images with copies of the images, and annotate/masks to put the masks into",
}

DESCRIPTION = "images that fewer select chose for annotation, the most useful first"


def can_open(path: Path) -> bool:
    """Whether a file is there and begins as an image does."""
    try:
        with open_image(path):
            return True
    except Exception:  # a broken file can make a decoder raise anything
        return False


def check_formats(formats: Sequence[str]) -> None:
    """Raise a :class:`FewerError` with the nearest valid name unless there are such formats."""
    for name in formats:
        if name not in FORMATS:
            raise FewerError(f"unknown export format {name!r}{near_match(name, FORMATS)}")


def export(queue: Sequence[Asked], root: Path, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the waiting images of a queue for annotation tools.

    Parameters
    ----------
    queue
        Images that wait for a label and can be opened.
    root
        Folder of the pool.
    folder
        Where to write.
    formats
        Names from :data:`FORMATS`.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    FewerError
        For an unknown format, or when something cannot be written.
    """
    check_formats(formats)
    written = []
    if "labelstudio" in formats:
        written.append(atomic_write_text(folder / "labelstudio.json", _label_studio(queue)))
    if "coco" in formats:
        written.append(atomic_write_text(folder / "coco.json", _coco(queue, root)))
    if "cvat" in formats:
        written.append(atomic_write_text(folder / "cvat.xml", write_cvat(_sizes(queue, root), DESCRIPTION)))
    if "masks" in formats:
        written.append(_folder(queue, root, folder / "annotate"))
    return written


def _label_studio(queue: Sequence[Asked]) -> str:
    tasks = [
        {
            "id": place + 1,
            "data": {
                # the form of Label Studio's local storage, whose document root is then the pool's folder
                "image": f"/data/local-files/?d={quote(asked.name)}",
                "fewer_name": asked.name,
                "round": asked.round,
                "rank": asked.rank,
                "why": asked.why,
            },
        }
        for place, asked in enumerate(queue)
    ]
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def _coco(queue: Sequence[Asked], root: Path) -> str:
    images = [
        {"id": place + 1, "file_name": name, "width": width, "height": height}
        for place, (name, width, height) in enumerate(_sizes(queue, root))
    ]
    categories = [{"id": 1, "name": "object", "supercategory": ""}]
    info = {"description": DESCRIPTION}
    data = {"info": info, "licenses": [], "images": images, "annotations": [], "categories": categories}
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _sizes(queue: Sequence[Asked], root: Path) -> list[tuple[str, int, int]]:
    """Name, width and height of every image, as the file holds it."""
    found = []
    for asked in queue:
        with open_image(root / asked.name) as image:
            found.append((asked.name, *image.size))
    return found


def _folder(queue: Sequence[Asked], root: Path, folder: Path) -> Path:
    try:
        for place, asked in enumerate(queue):
            target = folder / "images" / asked.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                temporary = target.with_name(f".{place}.tmp")  # short: names may be as long as they can be
                temporary.unlink(missing_ok=True)  # it may be another file's second name
                shutil.copyfile(root / asked.name, temporary)
                flush_file(temporary)
                temporary.replace(target)
        (folder / "masks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    return folder
