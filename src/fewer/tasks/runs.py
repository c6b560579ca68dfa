"""What every task does around a training: the run folder, the plan in words, unfinished work and its resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.core.staging import NEXT
from fewer.training.callbacks import WriteHistory, looking_on
from fewer.training.devices import process_rank

if TYPE_CHECKING:
    from fewer.reports.page import Page

__all__ = ["Order", "Trained", "Training", "carry_out", "plain_settings", "write_report"]


class _Plan(Protocol):
    def lines(self) -> list[str]: ...


class Trained(Protocol):
    """What a training returns; it is told which folder it ended in."""

    folder: Path | None


P = TypeVar("P", bound=_Plan)
R = TypeVar("R", bound=Trained)


@dataclass(frozen=True)
class Order:
    """What a user asks of a training besides its settings.

    Attributes
    ----------
    out
        Run folder; everything stays in memory when None.
    overwrite, resume
        What to do with an existing run folder.
    tell
        Is given the plan in words before the work begins.
    command
        The command line, for the log and the report.
    """

    out: str | Path | None = None
    overwrite: bool = False
    resume: bool = False
    tell: Callable[[str], None] | None = None
    command: str = ""


@dataclass(frozen=True)
class Training(Generic[P, R]):
    """The parts of a training in which tasks differ.

    Attributes
    ----------
    task
        Its name.
    plan
        Looks at the data; what it gives has ``lines``.
    inputs
        What the run's configuration says of the data: ``{"data": folder}``.
    fit
        ``fit(plan, scratch)`` trains; the checkpoint is kept in ``scratch``, or nowhere when that is None.
    save
        Writes model and report into the run folder.
    what
        What the work is called in messages.
    ends
        The file of the run that is written last: where it is, the work is finished.
    """

    task: str
    plan: Callable[[], P]
    inputs: Callable[[P], Mapping[str, str]]
    fit: Callable[[P, Path | None], R]
    save: Callable[[RunFolder, P, R], None]
    what: str = "training"
    ends: str = "report_json"


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings as TOML and JSON hold them; what is None is left out, since TOML has no word for it."""
    return {name: value for name, value in settings.model_dump(mode="json").items() if value is not None}


def write_report(run: RunFolder, page: Page) -> None:
    """Write a page as ``report.html``, and its numbers as ``report.json``, which says that a run is finished."""
    run.write_text("report_html", page.to_html())
    run.write_text("report_json", page.to_json())


def carry_out(training: Training[P, R], settings: Any, order: Order) -> R:
    """Plan, train and save; a run that was interrupted goes on from its checkpoint.

    Parameters
    ----------
    training
        The parts that are the task's.
    settings
        Are kept in the run's configuration.
    order
        Where to, and what to do with what is there.

    Raises
    ------
    FewerError
        When a finished run is to be resumed, the folder cannot be used, or the task says so.

    Notes
    -----
    Under ``torchrun`` or ``accelerate launch`` one process owns the folder; the others train along in memory, and read
    its checkpoint where they go on from one.
    """
    if process_rank() > 0:
        return training.fit(training.plan(), _scratch_of(order) if order.resume else None)
    with ExitStack() as stack:
        run = None
        if order.out is not None:
            made = RunFolder.create(order.out, overwrite=order.overwrite, resume=order.resume)
            run = stack.enter_context(made)
            if order.resume and run.has(training.ends):
                stack.close()  # new content that a kill has left complete comes into its place
                raise FewerError(f"the {training.what} in {order.out} is finished; give --overwrite to do it again")
        plan = training.plan()
        for line in plan.lines():
            if order.tell is not None:
                order.tell(line)
        if run is None:
            return training.fit(plan, None)
        inputs = training.inputs(plan)
        run.write_config({"task": training.task, **inputs, "settings": plain_settings(settings)})
        run.log("started", command=order.command, plan=plan.lines())
        with looking_on([WriteHistory(run.begun, plot=False)]):
            result = training.fit(plan, run.scratch())
        with run.together():
            training.save(run, plan, result)
        run.clear_scratch()
        result.folder = run.home
        return result


def _scratch_of(order: Order) -> Path | None:
    """Where the process that owns a run keeps its checkpoint; None where there is none."""
    if order.out is None:
        return None
    places = [Path(order.out) / NEXT / ".scratch", Path(order.out) / ".scratch"]
    return next((place for place in places if place.is_dir()), None)
