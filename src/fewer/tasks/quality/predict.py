"""Write what a tuned model says of every image of a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.data.images import list_images
from fewer.study.vocabulary import LEVELS
from fewer.tasks.folders import check_out, make_folder
from fewer.tasks.quality.settings import PredictSettings

__all__ = ["Descriptions", "predict"]

FILES = ("descriptions.json",)


@dataclass(frozen=True, repr=False)
class Descriptions(Told):
    """Texts and scores.

    Attributes
    ----------
    folder
        Where ``descriptions.json`` is.
    rows
        By image: ``text``, and ``score`` from 1 to 5.
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
        return told + [f"skipped {name}: {reason}" for name, reason in self.skipped]

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

    Raises
    ------
    FewerError
        When the run cannot be opened, or no image can be read.
    """
    from fewer.tasks.quality.asking import describe, level_scores
    from fewer.tasks.quality.compressing import open_tuned

    settings = settings or PredictSettings()
    check_out(out, FILES, overwrite or resume)
    tuned = open_tuned(run, device)
    root = Path(inputs)
    pictures = tuned.pictures(root)
    rows, skipped = {}, []
    files = list_images(root)
    with (progress or Silent()).stage("describe", len(files)) as stage:
        for path in files:
            name = path.relative_to(root).as_posix()
            try:
                text = describe(tuned, pictures, [name], settings.question)[name]
                score = float(level_scores(tuned, pictures, [name])[0])
                rows[name] = {"text": text, "score": round(score, 4), "level": LEVELS[min(4, round(score) - 1)]}
            except FewerError as error:
                skipped.append((name, str(error)))
            stage.advance(1)
    if not rows:
        raise FewerError(f"none of the {len(files)} images in {inputs} could be described")
    made = Descriptions(make_folder(out), rows, tuple(skipped))
    atomic_write_text(made.folder / FILES[0], json.dumps(made.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return made
