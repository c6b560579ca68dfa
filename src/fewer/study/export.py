"""What a study gives away: pathways as JSON, votes, scores, pairs and answers as CSV, and all of one rater."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.core.errors import FewerError, near_match
from fewer.core.reading import parse_json, read_json, refusing
from fewer.core.staging import write_together
from fewer.study.pathway import Pathway
from fewer.study.scores import SCORES, Scores, Votes
from fewer.study.store import Store

__all__ = ["Exported", "answers_of", "export_study", "pathways_of", "rater_data", "read_pathways", "votes_of"]

_QUERY = """
SELECT r.name AS rater, i.id AS item, i.form, m.file AS image,
       o.file AS other, i.question, i.repeat_of, m.gold, m.score,
       a.created, a.seconds, a.answer
FROM answers a JOIN items i ON i.id = a.item JOIN raters r ON r.id = a.rater JOIN images m ON m.id = i.image
LEFT JOIN images o ON o.id = i.other
"""


_HOLDS: dict[str, dict[str, type]] = {
    "pathway": {"description": str, "conclusion": str},
    "acr": {"level": int},
    "pair": {"better": object},
    "yes-no": {"answer": object},
}
"""What an answer holds, by its form."""


@dataclass(frozen=True, repr=False)
class Exported(Told):
    """What :func:`export_study` wrote: files and the number of rows in each."""

    folder: Path
    rows: dict[str, int]

    def lines(self) -> list[str]:
        """One line per file."""
        return [f"{count:6d}  {self.folder / name}" for name, count in self.rows.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"folder": str(self.folder), "rows": self.rows}


def answers_of(store: Store, rater: str | None = None) -> list[dict[str, Any]]:
    """All answers in the order in which they came, or those of one rater."""
    restore = "restore it from a backup"
    where, values = (" WHERE r.name = ?", (rater,)) if rater else ("", ())
    found = []
    for row in store.rows(_QUERY + where + " ORDER BY a.created, a.item", *values):
        plain = {key: row[key] for key in row.keys() if key != "answer"}  # noqa: SIM118
        with refusing(f"an answer in {store.path}", restore):
            answer = parse_json(row["answer"], "an answer")
            if any(not isinstance(answer[key], kind) for key, kind in _HOLDS[row["form"]].items()):
                raise ValueError(f"it is none of the form {row['form']}")
            found.append({**plain, "answer": answer})
    return found


def pathways_of(store: Store) -> list[Pathway]:
    """All texts."""
    found = []
    for row in answers_of(store):
        if row["form"] == "pathway":
            answer = row["answer"]
            found.append(Pathway(row["image"], row["rater"], answer["description"], answer["conclusion"]))
    return found


def votes_of(store: Store) -> Votes:
    """Levels of the form acr and of the conclusions of texts.

    Raises
    ------
    FewerError
        When there are none yet.
    """
    return Votes.of(_votes(store))


def _votes(store: Store) -> list[tuple[str, str, float]]:
    rows = [(r["rater"], r["image"], float(r["answer"]["level"])) for r in answers_of(store) if r["form"] == "acr"]
    return rows + [(p.rater, p.image, float(p.level)) for p in pathways_of(store) if p.level is not None]


def _scores(found: Scores) -> tuple[str, int]:
    """A table of scores, and its rows; images all of whose raters were rejected have none."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "score", "deviation", "votes"])
    count = 0
    for name, score, error, votes in zip(found.stimuli, found.score, found.deviation, found.votes, strict=True):
        if votes:
            table.writerow([name, f"{score:.4f}", f"{error * votes**0.5:.4f}", int(votes)])
            count += 1
    return text.getvalue(), count


def rater_data(store: Store, name: str) -> dict[str, Any]:
    """All that is kept of one rater.

    Raises
    ------
    FewerError
        When there is no such rater.
    """
    found = store.rows("SELECT * FROM raters WHERE name = ?", name)
    if not found:
        raise FewerError(
            f"there is no rater {name!r}{near_match(name, [r['name'] for r in store.rows('SELECT name FROM raters')])}"
        )
    row = found[0]
    facts = {"rater": name, "training_steps": row["trained"], "in_a_row": row["in_a_row"], "last": row["last"]}
    return {**facts, "answers": answers_of(store, name)}


def export_study(store: Store, out: str | Path, rater: str | None = None, method: str = "p910") -> Exported:
    """Write what was collected into a folder.

    Parameters
    ----------
    store
        Of the study; the server may go on meanwhile.
    out
        Folder for ``pathways.json``, ``votes.csv``, ``pairs.csv``, ``yes-no.csv``, and ``scores.csv`` where there are
        levels: a score for each image with the deviation of its votes, which ``fewer study convert`` takes.
    rater
        Write all of one rater into ``RATER.json`` instead.
    method
        How scores are made of levels; see :data:`~fewer.study.scores.SCORES`.
    """
    out, make = Path(out), SCORES[method].run
    texts, rows = _texts(store) if rater is None else _text_of(store, rater)
    if rater is None and (votes := _votes(store)):
        texts["scores.csv"], rows["scores.csv"] = _scores(make(Votes.of(votes)))
    out.mkdir(parents=True, exist_ok=True)
    write_together(out, texts)
    return Exported(out, rows)


def _text_of(store: Store, rater: str) -> tuple[dict[str, str], dict[str, int]]:
    data = rater_data(store, rater)
    name = f"{rater}.json"
    if name != Path(name).name:
        raise FewerError(f"the name of the rater {rater!r} is no name of a file")
    return {name: json.dumps(data, indent=1, ensure_ascii=False) + "\n"}, {name: len(data["answers"])}


def _texts(store: Store) -> tuple[dict[str, str], dict[str, int]]:
    """Contents and rows by the name of the file."""
    answers = answers_of(store)
    pathways = [pathway.to_dict() for pathway in pathways_of(store)]
    texts = {"pathways.json": json.dumps(pathways, indent=1, ensure_ascii=False) + "\n"}
    rows = {"pathways.json": len(pathways)}
    tables = {"votes.csv": ("acr", "level"), "pairs.csv": ("pair", "better"), "yes-no.csv": ("yes-no", "answer")}
    columns = ("rater", "item", "image", "other", "question", "gold", "repeat_of", "created", "seconds")
    for name, (form, key) in tables.items():
        of = [row for row in answers if row["form"] == form]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*columns, key])
        for row in of:
            cells = [row[column] for column in columns]
            table.writerow(["" if cell is None else cell for cell in cells] + [row["answer"][key]])
        texts[name] = text.getvalue()
        rows[name] = len(of)
    return texts, rows


def read_pathways(path: str | Path) -> list[Pathway]:
    """Read ``pathways.json``.

    Raises
    ------
    FewerError
        When it is no such file.
    """
    values = read_json(path, 2**28)
    try:
        return [Pathway(**{key: str(row[key]) for key in Pathway.__dataclass_fields__ if key in row}) for row in values]
    except (TypeError, AttributeError) as error:
        raise FewerError(f"{path} holds no pathways ({error}); make them with: fewer study export") from None
