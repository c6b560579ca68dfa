"""What a task is: the protocol that verbs and the engine ask, and a base class that makes most of it optional.

A task says what a model is for. It brings its data reader, its networks, its metrics and its pages; methods and the
engine never import one, they receive it as an object. A third party registers a task through the entry point group
``fewer.tasks``, whose value is a :class:`Task` subclass or an instance of one. Whoever has plain arrays of inputs and
targets starts from :class:`fewer.tasks.arrays.ArrayTask`, which needs five short methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from fewer.core.errors import FewerError, near_match
from fewer.core.options import RunOptions
from fewer.core.progress import Progress
from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.part import RuntimePart

__all__ = ["Checked", "NoSettings", "Quality", "Result", "Task", "knowing", "take_settings"]


@runtime_checkable
class Result(Protocol):
    """What a verb of a task returns, as far as the command line shows it."""

    def lines(self) -> Sequence[str]:
        """What a person should read, a sentence or a row of a table each; the verdict first."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """The same for ``--json``: plain numbers, strings, lists and dictionaries."""
        ...


class Checked(Result, Protocol):
    """What :meth:`Task.checkup` returns; ``healthy`` is false when the data must not be used as it is."""

    @property
    def healthy(self) -> bool:
        """Whether no error was found; warnings may be there."""
        ...


class Quality(Protocol):
    """How good a model is on annotated data: ``quality(model)`` gives numbers by name.

    It may also have ``interval(name, value)``, which gives the ends of a 95 % confidence interval of one of its
    numbers, or None; reports show it where it is there.

    Attributes
    ----------
    lower_is_better
        Names of the numbers for which less is better.
    note
        Where the numbers come from, such as ``on 20 annotated cases``.
    """

    lower_is_better: frozenset[str]
    note: str

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Evaluate a model, which is left as it is."""
        ...


class NoSettings(StrictSettings):
    """Of a verb that has nothing to choose."""


def take_settings(model: type[StrictSettings], settings: Any, values: dict[str, Any]) -> Any:
    """Settings with those keyword arguments that are settings, which leave ``values``.

    Examples
    --------
    >>> rest = {"steps": 3, "out": "run"}
    >>> take_settings(LoopSettings, None, rest).steps, rest
    (3, {'out': 'run'})
    """
    named = {name: values.pop(name) for name in list(values) if name in model.model_fields}
    if settings is None:
        return model.of(named)
    return model.of({**settings.model_dump(), **named}) if named else settings


@contextmanager
def knowing(verb: str, options: Mapping[str, Any], settings: type[StrictSettings]) -> Iterator[None]:
    """Tell an option that neither a task nor its settings know, with the nearest name that they do.

    Examples
    --------
    >>> def train(*, out=None): ...
    >>> with knowing("train", {"stps": 3}, LoopSettings):
    ...     train(stps=3)
    Traceback (most recent call last):
    fewer.core.errors.FewerError: fewer.train knows no 'stps'; did you mean 'steps'?
    """
    try:
        yield
    except TypeError as error:
        told = str(error).partition("unexpected keyword argument ")[2]
        wrong = next((name for name in options if told.startswith(repr(name))), None)  # Python may add a suggestion
        if wrong is None:
            raise
        known = (*settings.model_fields, *RunOptions.__annotations__, "out")
        raise FewerError(f"fewer.{verb} knows no {wrong!r}{near_match(wrong, known)}") from None


class Task:
    """Base class of tasks. Override what the task can do; the rest tells the user that it cannot.

    An instance holds no state. Keep imports of torch inside of the methods, so that lists and help pages stay quick.

    Attributes
    ----------
    name
        What a user types after ``--task``.
    note
        What it is for, in one line for ``fewer list tasks``.
    data
        What a data set is, as the end of the sentence "give ...".
    settings
        Settings of a training: a subclass of :class:`~fewer.training.settings.LoopSettings` whose fields carry their
        ``description``. Flags, help and TOML follow from it.
    evaluate_settings, predict_settings
        The same for what :meth:`evaluate` and :meth:`predict` can be told.
    warms_up
        Whether :meth:`warm_features` can learn features from unlabelled images.
    describes
        Whether :meth:`describe` can put images into numbers without learning.

    Examples
    --------
    >>> class Sorting(Task):
    ...     name, note = "sort", "puts photos in order"
    >>> Sorting().predict("run", "photos", out="sorted")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the task 'sort' cannot predict
    """

    name: ClassVar[str]
    note: ClassVar[str] = ""
    data: ClassVar[str] = "a folder with a data set"
    settings: ClassVar[type[LoopSettings]] = LoopSettings
    evaluate_settings: ClassVar[type[StrictSettings]] = NoSettings
    predict_settings: ClassVar[type[StrictSettings]] = NoSettings
    warms_up: ClassVar[bool] = False
    describes: ClassVar[bool] = False

    def recognises(self, data: str | Path) -> bool:
        """Whether a data set looks like one of this task, judged by names alone; used where no task was given."""
        return False

    def networks(self) -> Mapping[str, str]:
        """What can be trained by name, and what it is, for ``fewer list networks``."""
        return {}

    def open_run(self, run: str | Path) -> LoadedModel | None:
        """The network of a run that the task keeps in a form of its own; None where it is saved as all networks are."""
        return None

    def open_weights(self, state: Mapping[str, Tensor], name: str, config: str | None = None) -> LoadedModel | None:
        """The network of a published checkpoint, as its names tell which it is; None where they are of no such one.

        Parameters
        ----------
        state
            Weights by name.
        name
            Of the file, for people.
        config
            Configuration file that says what the weights do not.
        """
        return None

    def load_weights(self, model: nn.Module, state: Mapping[str, Tensor], name: str) -> bool:
        """Put weights that are laid out in the task's own way into its network; False where they are not."""
        return False

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """Build a network of the task with random weights.

        A run folder whose recipe has the source ``{"kind": "task", "task": TASK, "name": name, "args": args}`` is
        built again with it.
        """
        raise self._cannot("build networks")

    def plan(self, data: Any, settings: Any) -> Sequence[str]:
        """What a training would do, in words, for ``--dry-run``; nothing is written."""
        return []

    def train(
        self,
        data: Any,
        *,
        out: str | Path | None = None,
        settings: Any = None,
        overwrite: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        tell: Any = None,
        command: str = "",
        **more: Any,
    ) -> Result:
        """Train a network and leave a run folder in ``out`` (everything stays in memory when None).

        The folder holds ``recipe.json`` with ``task`` set to the task's name, so that every verb finds the task again.
        """
        raise self._cannot("train")

    def evaluate(
        self,
        target: str | Path,
        data: str | Path,
        *,
        out: str | Path | None = None,
        settings: Any = None,
        overwrite: bool = False,
        device: str = "cpu",
        progress: Progress | None = None,
        command: str = "",
    ) -> Result:
        """Score a run folder, or a folder of predictions, on annotated data; pages and tables go into ``out``."""
        raise self._cannot("evaluate")

    def predict(
        self,
        run: str | Path,
        inputs: str | Path,
        *,
        out: str | Path,
        settings: Any = None,
        overwrite: bool = False,
        resume: bool = False,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> Result:
        """Write a prediction for every input into ``out``; inputs that cannot be read are skipped and named."""
        raise self._cannot("predict")

    def checkup(self, data: str | Path, *, progress: Progress | None = None) -> Checked:
        """Find what is wrong with a data set."""
        raise self._cannot("check data")

    def repair(self, found: Any, out: str | Path, *, progress: Progress | None = None) -> Result:
        """Write a copy of a data set in which what is safe to repair is repaired."""
        raise self._cannot("repair data")

    def reads(self, inputs: str | Path) -> bool:
        """Whether only the task can read these inputs, so that :meth:`images` is asked; else the engine reads them.

        False for a folder of ordinary image files that need nothing but the preprocessing of the model.
        """
        return True

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """Inputs of a trained model for the engine, without labels.

        Parameters
        ----------
        loaded
            The trained model.
        folder
            Data set or folder of inputs.
        count
            Samples wanted.
        part
            ``calibration`` or ``heldout``: never the same file in both.
        seed
            Chooses samples.

        Returns
        -------
        ImageSet or samples
            See :mod:`fewer.data.images`.
        """
        raise self._cannot("give inputs to the engine")

    def judges(self, loaded: LoadedModel, folder: str | Path) -> bool:
        """Whether labelled data of a folder can judge a model that no task of fewer has trained."""
        return False

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Quality:
        """How good models of this kind are on the annotated data of a folder that they were not trained on."""
        raise self._cannot("judge a model on annotated data")

    def distance(self, loaded: LoadedModel) -> Any:
        """A distance between outputs that fits the task better than their squared difference; None for the latter.

        See :class:`fewer.distortion.outputs.Reference` for what it must be able to do.
        """
        return None

    def part(self, model: nn.Module, samples: Sequence[Any] = ()) -> RuntimePart | None:
        """What of a model goes into files for other runtimes, where they cannot run all of it or need to be told more.

        Parameters
        ----------
        model
            In evaluation mode.
        samples
            Inputs of the model, one sample each; made up where there is none.

        Returns
        -------
        RuntimePart or None
            None for the whole model on inputs of the size that its run tells.
        """
        return None

    def warm_features(self, files: Sequence[Path], out: Path, **more: Any) -> nn.Module:
        """A network that has learnt from unlabelled images, as the function from an image to a vector.

        A task that can do this says so with ``warms_up = True``; ``fewer select --features warm-up`` then finds it.
        """
        raise self._cannot("learn features without labels")

    def describe(self, files: Sequence[Path], *, progress: Progress) -> tuple[Any, dict[int, str]]:
        """Vectors [N, d] of images without a network, and the reason for each row that could not be read.

        A task that can do this says so with ``describes = True``; ``fewer select --features TASK`` then finds it.
        """
        raise self._cannot("describe images")

    def _cannot(self, what: str) -> FewerError:
        return FewerError(f"the task {self.name!r} cannot {what}")
