"""How the images of a pool are described and written down, beside the method that chooses among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from fewer.core.options import RunOptions
from fewer.core.strict import StrictSettings

__all__ = ["SelectOptions", "SelectSettings"]


class SelectSettings(StrictSettings):
    """Settings of :func:`fewer.select`.

    Examples
    --------
    >>> SelectSettings.of({"seed": 3}).to
    ('labelstudio', 'coco')
    """

    layer: str | None = Field(default=None, description="Layer of the model whose output is pooled.")
    input_size: int | None = Field(
        default=None, description="Side of the model's input in pixels; the model's own by default."
    )
    to: tuple[str, ...] = Field(
        default=("labelstudio", "coco"), description="Exports, see fewer.selection.export.FORMATS."
    )
    seed: int = Field(default=0, description="The same seed gives the same queue.")
    batch: int = Field(default=32, description="Images at once while they are embedded.")
    backend: str = Field(default="thread", description="serial, thread, process or ray, for embedding.")
    workers: int | None = Field(default=None, description="Tasks at once; one per core by default.")


class SelectChoices(TypedDict, total=False):
    """Single settings by name; see :class:`SelectSettings`."""

    layer: str | None
    input_size: int | None
    to: Sequence[str]
    seed: int
    batch: int
    backend: str
    workers: int | None


class SelectOptions(RunOptions, SelectChoices, total=False):
    """What :func:`fewer.select` can be told beside pool, budget, folder and method.

    Attributes
    ----------
    labels
        Labels that came back: see :func:`fewer.selection.labels.read_labels`.
    predictions
        Predictions of a model trained meanwhile: see :func:`fewer.selection.predictions.read_predictions`.
    trust
        Python file, or files, that the queue names its features by and that may be run; True for any.
    """

    labels: Any
    predictions: Any
    trust: Any
