"""Make a study: look at the images, choose what every rater is shown, write reference images and invitation codes."""

from __future__ import annotations

import csv
import io
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError, near_match
from fewer.core.files import atomic_write_bytes, real_path
from fewer.core.reading import read_text, refusing
from fewer.data.decode import read_image
from fewer.data.distortions.truth import Applied, distort, family
from fewer.data.images import list_images, printable, why_no_name
from fewer.study.folder import CODES, StudyFolder
from fewer.study.settings import StudySettings
from fewer.study.store import Store, secret_hash
from fewer.study.vocabulary import LEVELS

__all__ = ["Made", "new_study", "read_scores"]

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_LOOKED_AT, _LEAST_SIDE, _LEAST_COLOUR = 50, 256, 8.0  # files, pixels, and mean difference of the channels
# what raters learn on, the best first: recipe and level
_REFERENCE = (
    ((), 5),
    ((Applied("gaussian-blur", 2),), 3),
    ((Applied("gaussian-blur", 4),), 2),
    ((Applied("white-noise", 3),), 3),
    ((Applied("darken", 4),), 2),
    ((Applied("jpeg", 5), Applied("desaturate", 4)), 1),
)


@dataclass(frozen=True, repr=False)
class Made(Told):
    """What :func:`new_study` made.

    Attributes
    ----------
    folder
        Of the study.
    images
        Number of images that are shown.
    raters
        Number of codes.
    skipped
        Files that are no readable image, and why.
    """

    folder: Path
    images: int
    raters: int
    skipped: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """What was made and what comes next."""
        told = [
            f"a study of {self.images} images for {self.raters} raters in {self.folder}",
            f"codes   {self.folder / CODES} (give each rater one; the first is the owner's)",
            f"next    fewer study serve {self.folder}",
        ]
        shown = [f"skipped {name}: {reason}" for name, reason in self.skipped[:20]]
        more = [f"and {len(self.skipped) - 20} more"] if len(self.skipped) > 20 else []
        return told + shown + more

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        skipped = [{"file": name, "reason": reason} for name, reason in self.skipped]
        return {"folder": str(self.folder), "images": self.images, "raters": self.raters, "skipped": skipped}


def read_scores(path: str | Path, column: int = 1) -> dict[str, float]:
    """A table ``file,score`` with or without a heading.

    Parameters
    ----------
    path
        The table.
    column
        Where the number stands; of a further one than the second, rows may lack it.

    Raises
    ------
    FewerError
        When a row is no name and number.
    """
    found: dict[str, float] = {}
    with refusing(str(path), "write a file and a number on each line"):
        for place, row in enumerate(csv.reader(io.StringIO(read_text(path, 2**28, "table of scores"), newline=""))):
            if not row or (column > 1 and (len(row) <= column or not row[column].strip())):
                continue
            try:
                name, value = row[0].strip(), float(row[column])
            except (IndexError, ValueError):
                if place:
                    raise FewerError(f"{path}: line {place + 1} must be a file and a number") from None
                continue
            if not math.isfinite(value):
                raise FewerError(f"{path}: the score of {name} is {value}, which is no number")
            if found.setdefault(name, value) != value:
                raise FewerError(f"{path} gives {name} two numbers, {found[name]:g} and {value:g}; leave the right one")
    return found


def new_study(
    folder: str | Path,
    images: str | Path,
    settings: StudySettings | None = None,
    *,
    scores: Mapping[str, float] | None = None,
    gold: Mapping[str, float] | None = None,
    only: Collection[str] | None = None,
) -> Made:
    """Make a study.

    Parameters
    ----------
    folder
        Of the study; made when it is missing.
    images
        Folder of photos, which stay where they are. Unreadable ones are skipped and named.
    settings
        See :class:`~fewer.study.settings.StudySettings`.
    scores
        Known opinion score by file name, shown to raters if the settings say so.
    gold
        Level 1 to 5 that an attentive rater gives, by file name; these images are among everyone's.
    only
        Names of the images that are shown, such as those that ``fewer select`` chose; all by default. Gold images are
        shown in any case.

    Raises
    ------
    FewerError
        When there is a study already, or no image can be read.
    """
    folder, images = Path(folder), Path(images)
    settings = settings or StudySettings()
    with StudyFolder.create(folder) as study, study.together():  # a study without its codes would be of no use
        scores, gold = dict(scores or {}), dict(gold or {})
        files, skipped = _usable(images, folder, None if only is None else {*only, *gold})
        names = [path.relative_to(images).as_posix() for path in files]
        if only is not None:
            scores = {name: score for name, score in scores.items() if name in names}
        for what, table in (("scores", scores), ("gold", gold)):
            unknown = sorted(set(table) - set(names))
            if unknown:
                raise FewerError(f"the table of {what} names {unknown[0]}, which is no readable image of {images}")
        _check_numbers(scores, gold)
        if "pair" in settings.forms and len(names) < 2:
            raise FewerError("pairs need at least two images")
        store = Store.create(study.path, images, settings)
        try:
            codes = _fill(store, files, names, scores, gold)
        finally:
            store.close()
        text = "rater,code\n" + "".join(f"{name},{code}\n" for name, code in codes)
        atomic_write_bytes(study.path / CODES, text.encode(), 0o600)
    return Made(folder, len(names), settings.raters, tuple(skipped))


def _check_numbers(scores: Mapping[str, float], gold: Mapping[str, float]) -> None:
    """Raise a :class:`FewerError` for a score that is no number, or a level that is none of the five."""
    for name, value in scores.items():
        if not math.isfinite(value):
            raise FewerError(f"the score of {name} is {value}, which is no number")
    for name, value in gold.items():
        if value not in (1, 2, 3, 4, 5):
            raise FewerError(f"the gold level of {name} is {value:g}; it must be a whole number from 1 to 5")


def _fill(
    store: Store, files: list[Path], names: list[str], scores: Mapping[str, float], gold: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Images, raters and what each of them is shown; gives the codes by name of the rater."""
    settings = store.settings
    codes = [("owner", _code())] + [(f"rater-{i + 1:04d}", _code()) for i in range(settings.raters)]
    with store.transaction() as connection:
        rows = [(name, scores.get(name), None if name not in gold else int(gold[name])) for name in names]
        connection.executemany("INSERT INTO images (file, score, gold) VALUES (?, ?, ?)", rows)
        if settings.training:
            _reference(store.folder, files, connection)
        connection.executemany(
            "INSERT INTO raters (name, code, owner) VALUES (?, ?, ?)",
            [(name, secret_hash(code), int(name == "owner")) for name, code in codes],
        )
        shown = connection.execute("SELECT id, gold FROM images WHERE training = 0 ORDER BY id").fetchall()
        for rater in connection.execute("SELECT id FROM raters WHERE owner = 0 ORDER BY id").fetchall():
            _assign(connection, rater["id"], [(row["id"], row["gold"]) for row in shown], settings)
    return codes


def _usable(images: Path, folder: Path, only: Collection[str] | None) -> tuple[list[Path], list[tuple[str, str]]]:
    files, skipped = [], []
    found = {path.relative_to(images).as_posix(): path for path in list_images(images)}
    unknown = sorted(set(only) - set(found)) if only is not None else []
    if unknown:
        raise FewerError(f"{unknown[0]!r} is no image below {images}{near_match(unknown[0], found)}")
    for name, path in found.items():
        if only is not None and name not in only:
            continue
        if real_path(folder) in real_path(path).parents:  # reference images of an older study
            continue
        if reason := why_no_name(name):
            skipped.append((str(printable(name)), reason))
            continue
        try:
            read_image(path)
            files.append(path)
        except Exception as error:  # a broken file can make a decoder raise anything
            skipped.append((name, str(error) or type(error).__name__))
    if not files:
        raise FewerError(f"none of the {len(skipped)} images in {images} can be read")
    return files, skipped


def _code() -> str:
    text = "".join(secrets.choice(_LETTERS) for _ in range(12))
    return "-".join((text[:4], text[4:8], text[8:]))


def _shown_best(files: list[Path]) -> Path:
    """The first photo that shows all defects of the training: in colour, and not small; else the largest of some."""
    sizes: dict[Path, int] = {}
    for path in files[:_LOOKED_AT]:
        image = read_image(path)
        sizes[path] = min(image.size)
        if image.mode == "RGB" and sizes[path] >= _LEAST_SIDE:
            image.thumbnail((64, 64))
            values = np.asarray(image).astype(int)
            if np.ptp(values, axis=2).mean() > _LEAST_COLOUR:
                return path
    return max(sizes, key=lambda path: sizes[path])


def _reference(folder: Path, files: list[Path], connection: Any) -> None:
    """Images with known defects for the training, made from one photo; at most 640 pixels are cut out."""
    from PIL import Image

    image = read_image(_shown_best(files)).convert("RGB")
    left, top = max(0, (image.width - 640) // 2), max(0, (image.height - 640) // 2)
    pixels = np.asarray(image.crop((left, top, min(image.width, left + 640), min(image.height, top + 640))))
    (folder / "training").mkdir(exist_ok=True)
    for place, (applied, level) in enumerate(_REFERENCE):
        buffer = io.BytesIO()
        Image.fromarray(distort(pixels, applied, seed=place)).save(buffer, "PNG")
        name = f"training/{place + 1}.png"
        atomic_write_bytes(folder / name, buffer.getvalue())
        words = " and ".join(family(one.family).word for one in applied) or "as it came from the camera"
        advice = f"This picture is {words}. Most people say: {LEVELS[level - 1]}."
        connection.execute(
            "INSERT INTO images (file, gold, training, advice) VALUES (?, ?, 1, ?)", (f":{name}", level, advice)
        )


def _assign(connection: Any, rater: int, images: list[tuple[int, int | None]], settings: StudySettings) -> None:
    """What one rater is shown, in a random order of their own; gold images are always among them."""
    rng = np.random.default_rng([settings.seed, rater])
    place = 0
    for form in settings.forms:
        ids = [image for image, _ in images]
        gold = [image for image, level in images if level is not None]
        count = len(ids) if not settings.per_rater else min(len(ids), settings.per_rater)
        drawn = [int(i) for i in rng.permutation([i for i in ids if i not in set(gold)])]
        chosen = [int(i) for i in rng.permutation((gold + drawn)[: max(count, len(gold))])]
        again = [int(i) for i in rng.permutation(chosen)[: round(settings.repeats * len(chosen))]]
        first: dict[int, int] = {}
        # a repeat comes after all images have been seen once, so that memory helps least
        for image in chosen + (again if form in ("pathway", "acr") else []):
            other = int(rng.choice([i for i in ids if i != image])) if form == "pair" else None
            question = str(rng.choice(list(settings.questions))) if form == "yes-no" else ""
            cursor = connection.execute(
                "INSERT INTO items (rater, place, form, image, other, question, repeat_of) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (rater, place, form, image, other, question, first.get(image)),
            )
            first.setdefault(image, cursor.lastrowid)
            place += 1
