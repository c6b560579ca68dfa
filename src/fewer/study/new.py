"""Make a study: look at the images, choose what every rater is shown, write reference images and invitation codes."""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told, counted, skipped_lines
from fewer.core.errors import FewerError, near_match
from fewer.core.files import atomic_write_bytes, real_path
from fewer.core.progress import SILENT, Progress
from fewer.data.decode import read_image
from fewer.data.distortions.truth import Applied, distort, family
from fewer.data.images import left_out, list_images, printable, why_no_name
from fewer.study.folder import CODES, StudyFolder
from fewer.study.settings import StudySettings
from fewer.study.store import Store, secret_hash
from fewer.study.vocabulary import LEVELS

__all__ = ["Made", "new_study"]

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
        Pictures that cannot be read, and why.
    others
        How many files of other kinds are in the folder, by their ending.
    absent
        How many known scores are of images that are not there.
    """

    folder: Path
    images: int
    raters: int
    skipped: tuple[tuple[str, str], ...]
    others: dict[str, int] = field(default_factory=dict)
    absent: int = 0

    def lines(self) -> list[str]:
        """What was made and what comes next."""
        told = [
            f"a study of {counted(self.images, 'image')} for {counted(self.raters, 'rater')} in {self.folder}",
            f"codes   {self.folder / CODES} (give each rater one; the first is the owner's)",
            f"next    fewer study serve {self.folder}",
        ]
        kinds = ", ".join(f"{count} of {suffix}" for suffix, count in self.others.items())
        told += [f"{self.absent} scores are of images that are not there"] if self.absent else []
        return told + ([f"no pictures: {kinds}"] if kinds else []) + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        skipped = [{"file": name, "reason": reason} for name, reason in self.skipped]
        facts = {"folder": str(self.folder), "images": self.images, "raters": self.raters}
        return {**facts, "skipped": skipped, "others": self.others, "absent": self.absent}


def new_study(
    folder: str | Path,
    images: str | Path,
    settings: StudySettings | None = None,
    *,
    scores: Mapping[str, float] | None = None,
    gold: Mapping[str, float] | None = None,
    only: Collection[str] | None = None,
    progress: Progress = SILENT,
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
    progress
        Is told how many images were looked at.

    Raises
    ------
    FewerError
        When there is a study already, or no image can be read.
    """
    folder, images = Path(folder), Path(images)
    settings = settings or StudySettings()
    with StudyFolder.create(folder) as study, study.together():  # a study without its codes would be of no use
        scores, gold = dict(scores or {}), dict(gold or {})
        files, skipped = _usable(images, folder, None if only is None else {*only, *gold}, progress)
        names = [path.relative_to(images).as_posix() for path in files]
        # a published table names a whole database, of which a laboratory often has a part
        absent = sorted(set(scores) - set(names))
        if only is None and len(absent) == len(scores) and scores:
            raise FewerError(f"the table of scores names {absent[0]}, which is no readable image of {images}")
        scores = {name: score for name, score in scores.items() if name in names}
        if unknown := sorted(set(gold) - set(names)):
            raise FewerError(f"the table of gold names {unknown[0]}, which is no readable image of {images}")
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
    pictures, others = left_out(images, folder) if only is None else ([], {})
    skipped += pictures
    return Made(folder, len(names), settings.raters, tuple(skipped), others, 0 if only is not None else len(absent))


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


def _usable(
    images: Path, folder: Path, only: Collection[str] | None, progress: Progress
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Images that can be shown, and those that cannot, with the reason."""
    files: list[Path] = []
    skipped: list[tuple[str, str]] = []
    found = {path.relative_to(images).as_posix(): path for path in list_images(images)}
    unknown = sorted(set(only) - set(found)) if only is not None else []
    if unknown:
        raise FewerError(f"{unknown[0]!r} is no image below {images}{near_match(unknown[0], found)}")
    with progress.stage("images", len(found) if only is None else len(set(only))) as stage:
        for name, path in found.items():
            if only is not None and name not in only:
                continue
            stage.advance(1)
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
    ids = [image for image, _ in images]
    where = {image: i for i, image in enumerate(ids)}
    gold = {image: None for image, level in images if level is not None}
    for form in settings.forms:
        count = len(ids) if not settings.per_rater else min(len(ids), settings.per_rater)
        drawn = [int(i) for i in rng.permutation([i for i in ids if i not in gold])]
        chosen = [int(i) for i in rng.permutation([*gold, *drawn][: max(count, len(gold))])]
        again = [int(i) for i in rng.permutation(chosen)[: round(settings.repeats * len(chosen))]]
        first: dict[int, int] = {}
        # a repeat comes after all images have been seen once, so that memory helps least
        for image in chosen + (again if form in ("pathway", "acr") else []):
            other = None
            if form == "pair":  # any but the image itself
                drawn_at = int(rng.integers(len(ids) - 1))
                other = ids[drawn_at + (drawn_at >= where[image])]
            question = str(rng.choice(list(settings.questions))) if form == "yes-no" else ""
            cursor = connection.execute(
                "INSERT INTO items (rater, place, form, image, other, question, repeat_of) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (rater, place, form, image, other, question, first.get(image)),
            )
            first.setdefault(image, cursor.lastrowid)
            place += 1
