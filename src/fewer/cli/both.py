"""``fewer compress`` with budgets of two targets: an accelerator and encrypted inference, and one page of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.cli.flags import Shared
from fewer.core.budget import Budget
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.engine.settings import Settings

__all__ = ["compress_for_both"]

_COLUMNS = (("accelerator", 2), ("encrypted", 5))
PARTS = ("accelerator", "encrypted")
"""Folders of the two parts."""


def compress_for_both(
    model: str,
    images: str | None,
    budgets: tuple[Sequence[Budget], Sequence[Budget]],
    settings: Settings,
    refused: Sequence[str],
    shared: Shared,
    labelled: str | None = None,
) -> int:
    """A compressed model, a circuit, and one page of what each step does under both targets.

    Parameters
    ----------
    model, images, labelled
        As of ``fewer compress``.
    budgets
        Those of the model, and those of the circuit.
    settings
        Of the model's part.
    refused
        Flags that were given and mean nothing for a circuit.
    """
    from fewer.cli.show import as_json, say_would
    from fewer.core.budget import model_budgets

    if refused or images is None:
        wrong = f"--{refused[0]} has no meaning" if refused else "--images is missing"
        raise FewerError(f"budgets of a model and of a circuit over encrypted numbers were given, for which {wrong}")
    model_budgets(budgets[0])
    if settings.device != "cpu":
        raise FewerError(f"circuits are made on the processor; leave --device {settings.device} out")
    out, words = shared.out or "both", [",".join(map(str, part)) for part in budgets]
    places = [str(Path(out) / part) for part in PARTS]
    if shared.dry_run:
        told = f"would compress {model} within {words[0]} and write {places[0]}"
        then = f"would compile {model} within {words[1]} and write {places[1]}"
        return say_would([told, then, f"would write one page of both into {out}"], shared.json, out=out)
    _look(Path(out), shared)
    _refuse_unreadable(model)
    done, facts = _made(model, images, words, settings, shared, places, labelled)
    from fewer import joint_report

    page = joint_report(*places, out)
    if shared.json:
        as_json({"folder": out, "page": str(page), "report": done.report.model_dump(), "circuit": facts})
    else:
        _show(page)
    from fewer.cli.work import NOT_MET

    return 0 if done.report.verdict.met else NOT_MET


def _look(out: Path, shared: Shared) -> None:
    """Refuse a folder of something else, before hours of work."""
    if out.exists() and not out.is_dir():
        raise FewerError(f"{out} is a file, not a folder; choose another --out")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if names - {*PARTS, "report.html", "report.json"}:
        raise FewerError(f"{out} is not empty and holds no plans for two targets; choose another --out")
    if names and not (shared.overwrite or shared.resume):
        raise FewerError(f"{out} holds plans already; give --resume to go on with them, --overwrite to start anew")


def _refuse_unreadable(model: str) -> None:
    """A network that no circuit can be made of is told before the long work for the accelerator."""
    import torch

    from fewer.models.spec import load_untouched
    from fewer.private.reading import read_network

    loaded = load_untouched(model)
    read_network(loaded.model.eval(), torch.zeros(1, *loaded.preprocess.input_size))


def _made(
    model: str,
    images: str,
    words: Sequence[str],
    settings: Settings,
    shared: Shared,
    places: Sequence[str],
    labelled: str | None,
) -> tuple[Any, dict[str, Any]]:
    """Both parts; what was finished before an interruption is kept."""
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line
    from fewer.presets import preset_values

    done = fewer.compress(
        model, images, words[0], out=places[0], settings=settings, overwrite=shared.overwrite, resume=shared.resume,
        progress=terminal_progress(), command=command_line(), quality=labelled,
    )  # fmt: skip
    before = _circuit_before(Path(places[1]), words[1]) if shared.resume and not shared.overwrite else None
    if before is not None:
        return done, before
    facts = fewer.private_compile(
        model, images, places[1], budget=words[1], **preset_values("joint", "private"), seed=settings.seed,
        heldout=done.prepared.heldout, overwrite=shared.overwrite or shared.resume, progress=terminal_progress(),
    )  # fmt: skip
    return done, facts


def _circuit_before(place: Path, budget: str) -> dict[str, Any] | None:
    """What is told of a circuit that was finished for this very budget."""
    from fewer.core.reading import read_text
    from fewer.private.folder import FACTS
    from fewer.reports.page import Page

    if not (place / FACTS).is_file():
        return None
    facts = Page.from_json(read_text(place / FACTS, what="page of a circuit")).data
    return facts if (facts.get("cheaper") or {}).get("budget") == budget else None


def _show(page: Path) -> None:
    """The table of the page in a terminal, and where it is."""
    from fewer.core.reading import read_text
    from fewer.reports.page import Page

    found = Page.from_json(read_text(page.with_suffix(".json"), what="page of both"))
    print(found.sentence)
    for section in found.sections:
        for row in [row for table in section.tables for row in table.rows]:
            told = [f"{side} {row[i]} of the cost, distance {row[i + 1]}" for side, i in _COLUMNS if row[i] != "-"]
            print(f"  {row[0]}: {'; '.join(told) or 'not alone'}")
        for point in section.points if section.name == "order" else ():
            print(point)
    print(f"see {page}")
