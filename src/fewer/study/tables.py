"""Tables that other people made: opinion scores with all their columns, and lists of images."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.reading import read_bytes, read_text, refusing

__all__ = ["Opinions", "is_table", "read_names", "read_opinions", "read_scores", "table_rows"]

_LARGEST = 2**28  # bytes
_NAMES = ("imagename", "image", "file", "filename", "name", "imgname", "imgpath", "imagepath", "distimg", "img", "path")
_SCORES = ("score", "mos", "meanopinionscore", "mosquality", "quality", "gtscore", "rating", "dmos", "level")
_DEVIATIONS = ("deviation", "sd", "std", "mosstd", "stdquality", "stddev", "standarddeviation")
_VARIANCES = ("var", "variance")
_SCORE_LIKE = re.compile(r"mos|score|quality")
_NOT_SCORES = re.compile(r"std|stdev|dev|var|sd$|error|conf|ci|zscore|norm|count|num|votes|type|class|level")
"""Headings that may be those of scores where none of the known ones is there, and those that are not."""
_SHEETS = (".xlsx", ".xls", ".ods", ".mat", ".parquet", ".pkl")
_RATERS = ("rater", "raterid", "observer", "participant", "worker", "workerid", "userid")
"""How columns are called in public tables (KonIQ-10k, KADID-10k, SPAQ, AGIQA-3K, ...), in small letters without signs;
of several that are there, the first one is taken."""


def is_table(path: str | Path) -> bool:
    """Whether the ending of a file is that of a table, also of one that has to be saved as CSV first.

    Examples
    --------
    >>> is_table("mos.CSV"), is_table("mos_with_names.txt"), is_table("questions.json")
    (True, True, False)
    """
    return Path(path).suffix.lower() in (".csv", ".tsv", ".txt", *_SHEETS)


@dataclass(frozen=True)
class Opinions:
    """A table of opinions.

    Attributes
    ----------
    scores
        By image, in the order of the table.
    deviations
        Standard deviation of the opinions, for the images that have one.
    note
        Which columns were taken by their names; empty for a plain table ``file,score``.
    """

    scores: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    note: str = ""


def table_rows(path: str | Path, what: str = "table", *, spaces: bool = False) -> list[tuple[int, list[str]]]:
    """Rows of a table with the lines that they end in; cells are apart by commas, semicolons, tabs or ``|``.

    A mark of the byte order in front, as Excel writes one, is left out, and so are empty lines. With ``spaces``, spaces
    part a number from a name where nothing else does, as in TID2013.

    Raises
    ------
    FewerError
        When it is no text.
    """
    text = _text(path, what)
    first = next((line for line in text.splitlines() if line.strip()), "")
    apart = _separator(first)
    if spaces and apart == "," and "," not in first and _name_and_number(first.split()):
        text, apart = "\n".join("\t".join(line.split()) for line in text.splitlines()), "\t"
    with refusing(str(path), "write a file and a number on each line"):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=apart)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    if apart != ",":  # where a comma stands for the point
        rows = [(line, [_pointed(cell) for cell in row]) for line, row in rows]
    return [(line, row) for line, row in rows if any(row)]


def _text(path: str | Path, what: str) -> str:
    """The text of a table, in UTF-8 or in what Excel calls Unicode."""
    if Path(path).suffix.lower() in _SHEETS:
        raise FewerError(f"{path} is no text; save it as a table of CSV, with a name and a number on each line")
    raw = read_bytes(path, _LARGEST)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        with refusing(str(path), f"save the {what} as CSV in UTF-8"):
            return raw.decode("utf-16")
    return read_text(path, _LARGEST, what).removeprefix("\ufeff")


def _name_and_number(cells: list[str]) -> bool:
    return len(cells) == 2 and _is_number(cells[0]) != _is_number(cells[1])


def _separator(line: str) -> str:
    """What stands between the cells of a line; commas may be those of numbers, as in ``a.png;3,5``."""
    for apart in ("\t", ";", "|"):
        cells = [cell.strip() for cell in line.split(apart)]
        if len(cells) > 1 and not any("," in cell and cell == _pointed(cell) for cell in cells):
            return apart
    return ";" if line.count(";") > line.count(",") else ","


def _pointed(cell: str) -> str:
    whole, _, part = cell.removeprefix("-").partition(",")
    return cell.replace(",", ".") if whole.isdecimal() and part.isdecimal() else cell


def _plain(cell: str) -> str:
    return "".join(letter for letter in cell.lower() if letter.isalnum())


def _column(head: list[str], known: tuple[str, ...]) -> int | None:
    return next((head.index(name) for name in known if name in head), None)


def read_opinions(path: str | Path) -> Opinions:
    """A table of images and their opinion scores.

    A heading tells the columns by their names, in any order and among any others: that of the images (``file``,
    ``image_name``, ``dist_img``, ...), of the scores (``score``, ``MOS``, ``mos_quality``, ``dmos``, ...) and, where
    there is one, of their deviation (``deviation``, ``SD``, ``std``, or ``var``). Without such a heading, the first
    two columns are taken, in either order, and a third one is the deviation.

    Raises
    ------
    FewerError
        When a row is no name and number, or more than three columns have no heading that says which one to take.
    """
    rows = table_rows(path, "table of scores", spaces=True)
    head = [_plain(cell) for cell in rows[0][1]] if rows else []
    score = _column(head, _SCORES)
    if score is None:
        score = _alike(head, rows[1:])
    if score is None:
        return _read(path, _name_first(_without_heading(path, rows)), (0, 1, 2), (), "")
    if (rater := _column(head, _RATERS)) is not None:
        raise FewerError(
            f"{path} has a column {rows[0][1][rater]}, so it holds the votes of single people; give one score for each "
            "image, such as the scores.csv of fewer study export"
        )
    name = _column(head, _NAMES)
    if name is None:
        likely = (i for i, cell in enumerate(head) if i != score and ("image" in cell or "file" in cell))
        name = next(likely, 1 if score == 0 else 0)
    wide, squared = _column(head, _DEVIATIONS), _column(head, _VARIANCES)
    columns = (name, score, wide if wide is not None else squared)
    told = [rows[0][1][i] for i in columns if i is not None]
    note = f"columns {', '.join(told)} of {Path(path).name}"
    if head[score] == "dmos":
        note += ", taken as higher is better, as in KADID-10k; in LIVE and CSIQ a high dmos is bad"
    plain = [_plain(cell) for cell in told[:2]] == ["file", "score"]
    return _read(path, rows[1:], columns, rows[0][1], "" if plain else note, squared if wide is None else None)


def _alike(head: list[str], rows: list[tuple[int, list[str]]]) -> int | None:
    """The one column of numbers that is headed like scores, such as ``quality_mos``; None where there is not one."""
    found = [
        i
        for i, cell in enumerate(head)
        if _SCORE_LIKE.search(cell)
        and not _NOT_SCORES.search(cell)
        and all(i < len(row) and _is_number(row[i]) for _, row in rows)
    ]
    return found[0] if len(found) == 1 and rows else None


def _name_first(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows whose numbers all stand before the names are turned around, as in TID2013."""
    if rows and all(len(row) == 2 and _is_number(row[0]) and not _is_number(row[1]) for _, row in rows):
        return [(line, row[::-1]) for line, row in rows]
    return rows


def _without_heading(path: str | Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows of numbers; a first row without any is a heading whose names say nothing."""
    heading = bool(rows) and (len(rows[0][1]) < 2 or not any(map(_is_number, rows[0][1][:2])))
    widest = max((len(row) for _, row in rows), default=0)
    if widest > 3:
        of = f" ({', '.join(rows[0][1])[:100]})" if heading else ""
        raise FewerError(
            f"{path} has {widest} columns{of}, and no heading says which one holds the scores; name it score or MOS in "
            "the first line, or give a table file,score"
        )
    return rows[1:] if heading else rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read(
    path: str | Path,
    rows: list[tuple[int, list[str]]],
    columns: tuple[int, int, int | None],
    head: list[str] | tuple[()],
    note: str,
    squared: int | None = None,
) -> Opinions:
    name, score, wide = columns
    scores: dict[str, float] = {}
    deviations: dict[str, float] = {}
    for line, row in rows:
        if head and len(row) > len(head) and any(row[len(head) :]):
            raise FewerError(f"{path}: line {line} has {len(row)} cells, and the heading {len(head)}")
        if max(name, score) >= len(row) or not row[name] or not _is_number(row[score]):
            raise FewerError(f"{path}: line {line} must be a file and a number")
        _keep(path, scores, row[name], row[score], "score")
        if wide is not None and wide < len(row) and row[wide]:
            if not _is_number(row[wide]):
                raise FewerError(f"{path}: line {line} must be a file, a number and its deviation")
            _keep(path, deviations, row[name], row[wide], "deviation")
    if squared is not None:
        deviations = {image: math.sqrt(max(value, 0.0)) for image, value in deviations.items()}
    if not scores:
        raise FewerError(f"{path} holds no score; write a file and a number on each line")
    return Opinions(scores, deviations, note)


def _keep(path: str | Path, found: dict[str, float], name: str, cell: str, what: str) -> None:
    value = float(cell)
    if not math.isfinite(value):
        raise FewerError(f"{path}: the {what} of {name} is {value}, which is no number")
    if found.setdefault(name, value) != value:
        raise FewerError(f"{path} gives {name} two numbers, {found[name]:g} and {value:g}; leave the right one")


def read_scores(path: str | Path) -> dict[str, float]:
    """The scores of :func:`read_opinions`, by image.

    Raises
    ------
    FewerError
        As there.
    """
    return read_opinions(path).scores


def read_names(path: str | Path) -> list[str]:
    """Names of images: one a line, or the column ``name``, ``file`` or ``image`` of a table such as ``queue.csv``.

    Raises
    ------
    FewerError
        When there is none.
    """
    if Path(path).suffix.lower() in (".csv", ".tsv"):
        rows = [row for _, row in table_rows(path, "list of images") if row[0]]
        head = [_plain(cell) for cell in rows[0]] if rows else []
        at = _column(head, ("name", "file", "image", *_NAMES))
        names = [row[at or 0] for row in (rows if at is None else rows[1:]) if len(row) > (at or 0) and row[at or 0]]
    else:
        text = read_text(path, _LARGEST, "list of images").removeprefix("\ufeff")
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise FewerError(f"{path} names no image; write one a line")
    return list(dict.fromkeys(names))
