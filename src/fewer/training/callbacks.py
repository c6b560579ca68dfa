"""What looks on while a training goes on: changes between steps, files and logs after validations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import as_path, explain_os_error
from fewer.training.history import Fit

__all__ = [
    "Callback",
    "TensorBoard",
    "WriteHistory",
    "full_name",
    "history_file",
    "lookers",
    "looking_on",
    "trainings_of",
]

_MAIN = ("", "train", "tune")
"""Names of the one training of a verb; others are stages, and what is written of them has their name."""

_LOOKERS: ContextVar[tuple[Callback, ...]] = ContextVar("lookers", default=())
_UNDER: ContextVar[tuple[str, ...]] = ContextVar("under", default=())


class Callback:
    """Called at fixed points of a training; a subclass fills in the ones it needs.

    What a callback changes must depend on ``fit`` alone, or an interrupted training ends differently.

    Examples
    --------
    >>> class Count(Callback):
    ...     steps = 0
    ...     def after_step(self, fit):
    ...         self.steps += 1
    """

    def start(self, fit: Fit) -> None:
        """Before the first step of this process; ``fit.step`` is not 0 when the training goes on from a checkpoint."""

    def before_step(self, fit: Fit) -> None:
        """Before each step; ``fit.part`` is the share of the schedule that is over."""

    def after_step(self, fit: Fit) -> None:
        """After each finished step."""

    def validated(self, fit: Fit) -> None:
        """After each validation; its numbers are ``fit.history[-1]``."""

    def finish(self, fit: Fit) -> None:
        """After the last step, and the last validation."""


@contextmanager
def looking_on(callbacks: Iterable[Callback]) -> Iterator[None]:
    """Let callbacks see every training that begins inside, also those that a verb or a method starts by itself.

    Where several processes train together, those of the first one are called.

    Examples
    --------
    >>> with looking_on([Callback()]):
    ...     len(lookers())
    1
    """
    token = _LOOKERS.set((*_LOOKERS.get(), *callbacks))
    try:
        yield
    finally:
        _LOOKERS.reset(token)


def lookers() -> tuple[Callback, ...]:
    """The callbacks of :func:`looking_on` around the caller."""
    return _LOOKERS.get()


@contextmanager
def trainings_of(name: str) -> Iterator[None]:
    """Give every training that begins inside the name of what it belongs to, such as one of several networks.

    Examples
    --------
    >>> with trainings_of("curves"):
    ...     full_name("train")
    'curves-train'
    """
    token = _UNDER.set((*_UNDER.get(), name))
    try:
        yield
    finally:
        _UNDER.reset(token)


def full_name(name: str) -> str:
    """The name of a training with that of what it belongs to; see :func:`trainings_of`."""
    return "-".join((*_UNDER.get(), name))


def history_file(name: str) -> str:
    """What the table of a training is called in its run folder.

    Examples
    --------
    >>> history_file("train"), history_file("source only")
    ('history.csv', 'history-source-only.csv')
    """
    return "history.csv" if name in _MAIN else f"history-{re.sub(r'[^0-9A-Za-z_.]+', '-', name)}.csv"


class WriteHistory(Callback):
    """Write ``history.csv`` and ``history.svg`` into a folder after every validation.

    Parameters
    ----------
    folder
        Must be there.
    plot
        False writes the table alone.
    """

    def __init__(self, folder: str | Path, plot: bool = True) -> None:
        self.folder, self.plot = Path(folder), plot

    def validated(self, fit: Fit) -> None:
        """Write the files anew."""
        table = self.folder / history_file(fit.name)
        fit.history.save(table)
        if self.plot:
            fit.history.save_plot(table.with_suffix(".svg"))

    def finish(self, fit: Fit) -> None:
        """Write them where the training was over before this process began."""
        if fit.history and not (self.folder / history_file(fit.name)).exists():
            self.validated(fit)


class TensorBoard(Callback):
    """Write every validation as scalars for TensorBoard (extra ``logs``).

    Parameters
    ----------
    folder
        Made when a training begins. One that goes on from a checkpoint adds to what is there. Scalars of a stage have
        its name before their own.

    Raises
    ------
    FewerError
        When TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FewerError(f'logs for TensorBoard need it ({error}); pip install "fewer[logs]"') from None
        self.folder, self._make = as_path(folder), SummaryWriter
        if self.folder.exists() and not self.folder.is_dir():
            raise FewerError(f"logs for TensorBoard need a folder; {self.folder} is a file")
        self._writer: Any = None

    def start(self, fit: Fit) -> None:
        """Open a file in the folder."""
        try:
            self._writer = self._make(str(self.folder))
        except OSError as error:
            raise explain_os_error(error, self.folder, "write logs to") from None

    def validated(self, fit: Fit) -> None:
        """Write the numbers of the latest entry."""
        stage = "" if fit.name in _MAIN else f"{fit.name}/"
        for name, value in fit.history[-1].items():
            if name != "step":
                self._writer.add_scalar(stage + name, value, fit.step)
        self._writer.flush()

    def finish(self, fit: Fit) -> None:
        """Close the file."""
        self._writer.close()
