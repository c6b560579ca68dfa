"""What looks on while a training goes on: changes between steps, files and logs after validations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.training.history import Fit

__all__ = ["Callback", "TensorBoard", "WriteHistory"]


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


class WriteHistory(Callback):
    """Write ``history.csv`` and ``history.svg`` into a folder after every validation.

    Parameters
    ----------
    folder
        Must be there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def validated(self, fit: Fit) -> None:
        """Write both files anew."""
        fit.history.save(self.folder / "history.csv")
        fit.history.save_plot(self.folder / "history.svg")


class TensorBoard(Callback):
    """Write every validation as scalars for TensorBoard (extra ``logs``).

    Parameters
    ----------
    folder
        Made if it is not there. A training that goes on from a checkpoint adds to what is there.

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
        self._writer: Any = SummaryWriter(str(folder))

    def validated(self, fit: Fit) -> None:
        """Write the numbers of the latest entry."""
        for name, value in fit.history[-1].items():
            if name != "step":
                self._writer.add_scalar(name, value, fit.step)
        self._writer.flush()

    def finish(self, fit: Fit) -> None:
        """Close the file."""
        self._writer.close()
