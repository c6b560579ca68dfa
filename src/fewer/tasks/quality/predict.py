"""Write what a tuned model says of every image of a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told, skipped_lines
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.core.reading import parse_json, read_json, read_text, refusing
from fewer.data.images import left_out, list_images, printable, why_no_name
from fewer.study.vocabulary import LEVELS
from fewer.tasks.folders import check_out, make_folder
from fewer.tasks.quality.levels import NoLevels
from fewer.tasks.quality.settings import PredictSettings
from fewer.training.checkpoint import work_key

__all__ = ["Descriptions", "predict"]

FILES = ("descriptions.json",)
UNFINISHED = ".descriptions.jsonl"


@dataclass(frozen=True, repr=False)
class Descriptions(Told):
    """Texts and scores.

    Attributes
    ----------
    folder
        Where ``descriptions.json`` is.
    rows
        By image: ``text``, and where the model knows rating words ``score`` from 1 to 5 and its ``level``.
    skipped
        Images that could not be read, and why.
    """

    folder: Path
    rows: dict[str, dict[str, Any]]
    skipped: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """How many, and what was skipped."""
        told = [f"{len(self.rows)} images described in {self.folder / FILES[0]}"]
        empty = sum(not row["text"].strip() for row in self.rows.values())
        if empty:
            told.append(f"{empty} texts are empty: the model has learnt too little, or no conversation with texts")
        if not any("score" in row for row in self.rows.values()):
            told.append("there are no scores: the model does not know the five rating words apart")
        return told + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"folder": str(self.folder), "images": self.rows, "skipped": [list(pair) for pair in self.skipped]}


def predict(
    run: str | Path,
    inputs: str | Path,
    *,
    out: str | Path,
    settings: PredictSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Descriptions:
    """Describe and score every image of a folder.

    Parameters
    ----------
    run
        Of ``fewer tune``, or what ``fewer compress`` made of it.
    inputs
        Folder of images.
    out
        Folder for ``descriptions.json``.
    resume
        Go on where a prediction with the same run, folder and question ended midway; one that is finished is kept.

    Raises
    ------
    FewerError
        When the run cannot be opened, or no image can be read.
    """
    from fewer.tasks.quality.asking import describe
    from fewer.tasks.quality.compressing import open_tuned

    settings = settings or PredictSettings()
    if resume and not overwrite and (Path(out) / FILES[0]).is_file():
        return _read(Path(out))
    check_out(out, FILES, overwrite)
    tuned = open_tuned(run, device)
    root = Path(inputs)
    pictures = tuned.pictures(root)
    skipped: list[tuple[str, str]] = []
    files = list_images(root)
    recipe = read_text(Path(run) / "recipe.json", 2**28)
    begun = _Begun(make_folder(out) / UNFINISHED, work_key(recipe, str(root.resolve()), settings.question), resume)
    rows: dict[str, dict[str, Any]] = {}
    with (progress or Silent()).stage("describe", len(files)) as stage:
        for path in files:
            name = path.relative_to(root).as_posix()
            stage.advance(1)
            if reason := why_no_name(name):
                skipped.append((str(printable(name)), reason))
                continue
            try:
                if name not in begun.rows:
                    text = describe(tuned, pictures, [name], settings.question)[name]
                    begun.add(name, {"text": text, **_score(tuned, pictures, name)})
                rows[name] = begun.rows[name]
            except FewerError as error:
                skipped.append((name, str(error.__cause__ or error)))  # the name stands beside it
    skipped += left_out(root, out)[0]
    if not rows:
        begun.done()
        raise FewerError(f"none of the {len(files)} images in {inputs} could be described; the first: {skipped[0][1]}")
    made = Descriptions(Path(out), rows, tuple(skipped))
    atomic_write_text(made.folder / FILES[0], json.dumps(made.to_dict(), indent=1, ensure_ascii=False) + "\n")
    begun.done()
    return made


def _score(tuned: Any, pictures: Any, name: str) -> dict[str, Any]:
    """Score and level of an image; nothing where the model does not know the rating words apart."""
    from fewer.tasks.quality.asking import level_scores

    try:
        score = float(level_scores(tuned, pictures, [name])[0])
    except NoLevels:
        return {}
    return {"score": round(score, 4), "level": LEVELS[min(4, round(score) - 1)]}


class _Begun:
    """Texts and scores so far, one line each behind a line that says of which work they are."""

    def __init__(self, path: Path, key: str, resume: bool) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if resume and path.is_file():
            first, *lines = read_text(path, 2**31).split("\n")
            if first == key:
                for line in lines[:-1]:  # the last one is empty, or was not written to its end
                    name, row = parse_json(line, str(path))
                    self.rows[name] = row
        text = "".join(f"{json.dumps([name, row])}\n" for name, row in self.rows.items())
        atomic_write_text(path, f"{key}\n{text}")

    def add(self, name: str, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, row]) + "\n")
        self.rows[name] = row

    def done(self) -> None:
        self.path.unlink(missing_ok=True)


def _read(folder: Path) -> Descriptions:
    found = read_json(folder / FILES[0], 2**30)
    with refusing(str(folder / FILES[0]), "predict again with --overwrite"):
        return Descriptions(folder, dict(found["images"]), tuple((str(n), str(why)) for n, why in found["skipped"]))
