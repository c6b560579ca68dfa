"""What a task has written about a model into its recipe, checked when it is read: a recipe may be anybody's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewer.core.errors import FewerError
from fewer.core.files import real_path

if TYPE_CHECKING:
    from fewer.models.spec import LoadedModel

__all__ = ["Held", "Split", "TaskFacts", "facts_of"]

_Path = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]


class _Open(BaseModel):
    """Keys that are not known here are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


class Split(_Open):
    """Which cases of a data set have trained a model, and which have judged it."""

    data: _Path = ""
    train: list[str] = Field(default_factory=list)
    val: list[str] = Field(default_factory=list)

    def is_of(self, root: str | Path, names: Iterable[str]) -> bool:
        """Whether a data set is the one that trained: at the same place, or moved from there.

        Moved is a set with the very same cases, where nothing is left at the old place. What trained would otherwise
        judge as soon as data lie elsewhere.

        Examples
        --------
        >>> Split(data="/no/such/place", train=["a"], val=["b"]).is_of("elsewhere", ["b", "a"])
        True
        """
        if real_path(self.data) == real_path(root):
            return True
        try:
            left = not self.data or Path(self.data).exists()
        except OSError:  # the file that holds it may be anybody's
            left = True
        return not left and {*self.train, *self.val} == set(names)


class Held(_Open):
    """Images of a data set that a model has not been trained on."""

    data: _Path = ""
    names: list[str] = Field(default_factory=list)


class TaskFacts(_Open):
    """What tasks keep; each of them a part.

    Attributes
    ----------
    split, held
        None where the model was not trained on a folder.
    classes
        Names of the outputs in their order.
    view
        Of scans: ``camera`` or nothing.
    bright
        Of scans: how bright bright points were in the training, as they were read; None where that was not kept.
    preparation
        How images become inputs.
    """

    split: Split | None = None
    held: Held | None = None
    classes: list[str] = Field(default_factory=list)
    view: str = ""
    bright: float | None = None
    preparation: dict[str, Any] | None = None


def facts_of(loaded: LoadedModel, task: str) -> TaskFacts:
    """What a task has written about a model; nothing where another one has trained it.

    Raises
    ------
    FewerError
        When the recipe holds something of another kind there.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> run = SimpleNamespace(name="run", meta={"gait": {"split": {"data": "walks", "train": ["001"]}}})
    >>> facts_of(run, "gait").split
    Split(data='walks', train=['001'], val=[])
    >>> facts_of(SimpleNamespace(name="run", meta={"gait": 3}), "gait")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the recipe of run is damaged: gait: Input should be an object; train it again
    """
    try:
        return TaskFacts.model_validate(loaded.meta.get(task, {}))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([task, *map(str, first["loc"])])
        message = "Input should be an object" if first["type"] == "model_type" else first["msg"]
        raise FewerError(f"the recipe of {loaded.name} is damaged: {name}: {message}; train it again") from None
