"""A task of plain arrays: five short methods give training, scores, predictions, and a compression with quality.

For whoever has inputs and targets of one shape. A task with files of its own, pages or a loop of its own starts from
:class:`fewer.tasks.task.Task`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.tasks.folders import check_out, device_of, make_folder
from fewer.tasks.runs import Order, Training, carry_out, write_report
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewer.models.spec import LoadedModel

__all__ = ["ArrayTask", "Arrays", "Measured"]

HELD = 0.25
"""Share of the rows that judges."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Inputs [N, ...] as float32 and targets [N, ...]; ``names`` are those of the rows, the same on every machine."""

    inputs: np.ndarray
    targets: np.ndarray
    names: Sequence[str] = ()

    def rows(self, part: str) -> np.ndarray:
        """Row numbers that ``train``, or that judge (``test``): every fourth, so that nothing depends on a seed."""
        held = np.arange(len(self.inputs)) % round(1 / HELD) == round(1 / HELD) - 1
        return np.flatnonzero(held if part == "test" else ~held)


@dataclass(eq=False, repr=False)
class Measured(Told):
    """Numbers by name, of a training, an evaluation or a prediction."""

    numbers: dict[str, float]
    note: str = ""
    history: list[dict[str, float]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line per number."""
        return [f"{name} {value:.4g}" for name, value in self.numbers.items()] + ([self.note] if self.note else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"numbers": self.numbers, "note": self.note, "history": self.history}


@dataclass(frozen=True, eq=False)
class _Planned:
    """What a training works on: the rows, the network's name and arguments, and the plan in words."""

    data: Arrays
    network: str
    args: dict[str, Any]
    told: list[str]

    def lines(self) -> list[str]:
        return self.told


@dataclass(eq=False)
class _Fitted:
    model: nn.Module
    measured: Measured
    folder: Path | None = None


class ArrayTask(Task):
    """Base class of tasks whose data set is a pair of arrays. Override the five methods that come first.

    Attributes
    ----------
    lower_is_better
        Names of the numbers of :meth:`measure` for which less is better.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def read(self, data: Path) -> Arrays:
        """Read a data set; a folder of new inputs may have targets of zeros."""
        raise self._cannot("read data")

    def network_args(self, data: Arrays, settings: Any) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the network that fits some data, as :meth:`network` takes them."""
        raise self._cannot("choose a network")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What a training makes small."""
        raise self._cannot("train")

    def measure(self, outputs: np.ndarray, targets: np.ndarray) -> Mapping[str, float]:
        """How good outputs are; the first number chooses the best state of a training."""
        raise self._cannot("measure")

    def plan(self, data: Any, settings: Any) -> list[str]:
        """Rows and network."""
        found = self._arrays(data)
        name, args = self.network_args(found, settings)
        rows = f"{len(found.rows('train'))} rows train, {len(found.rows('test'))} judge"
        return [f"{rows}, inputs {found.inputs.shape[1:]}", f"network {name} {args}"]

    def train(
        self,
        data: Any,
        *,
        out: str | Path | None = None,
        settings: Any = None,
        overwrite: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        tell: Callable[[str], None] | None = None,
        command: str = "",
    ) -> Measured:
        """Train on three quarters of the rows; the best state on the others is kept."""
        settings, progress = settings or self.settings(), progress or Silent()
        where = str(data) if isinstance(data, (str, Path)) else "arrays"
        training = Training(
            self.name,
            lambda: self._planned(data, settings),
            lambda plan: {"data": where},
            lambda plan, scratch: self._fit(plan, settings, scratch, progress),
            lambda run, plan, fitted: self._save(run, plan, fitted, command),
        )
        return carry_out(training, settings, Order(out, overwrite, resume, tell, command)).measured

    def _planned(self, data: Any, settings: Any) -> _Planned:
        found = self._arrays(data)
        return _Planned(found, *self.network_args(found, settings), self.plan(found, settings))

    def _fit(self, plan: _Planned, settings: Any, scratch: Path | None, progress: Progress) -> _Fitted:
        import torch

        from fewer.training.checkpoint import Checkpoint, work_key
        from fewer.training.loop import check_device, fit, make_accelerator

        check_device(settings)
        torch.manual_seed(settings.seed)
        accelerator = make_accelerator(settings)
        data, name, args = plan.data, plan.network, plan.args
        model = self.network(name, args).to(accelerator.device)
        rows, held = data.rows("train"), data.rows("test")
        inputs, targets = torch.from_numpy(data.inputs).float(), torch.from_numpy(data.targets)

        def objective(net: nn.Module, step: int) -> Tensor:
            chosen = np.random.default_rng([settings.seed, step]).choice(rows, settings.batch)
            return self.loss(net(inputs[chosen].to(accelerator.device)), targets[chosen].to(accelerator.device))

        def score(net: nn.Module) -> float:
            found = self._numbers(net, data, held)
            first = next(iter(found))
            return -found[first] if first in self.lower_is_better else found[first]

        key = work_key(settings.model_dump(exclude={"device"}), name, args, list(data.names), len(data.inputs))
        done = fit(
            model,
            objective,
            settings,
            accelerator,
            name="train",
            progress=progress,
            checkpoint=Checkpoint.within(scratch, key),
            validate=score,
        )
        if done.best is not None:
            model.load_state_dict(done.best)
        note = f"on {len(held)} rows that did not train"
        return _Fitted(model.eval(), Measured(self._numbers(model, data, held), note, done.history))

    def _save(self, run: RunFolder, plan: _Planned, fitted: _Fitted, command: str) -> None:
        from fewer.models.artefact import save_artefact
        from fewer.reports.page import Page, Tile

        name, measured = plan.network, fitted.measured
        source = {"kind": "task", "task": self.name, "name": name, "args": plan.args}
        meta = {"task": self.name, "model": name, "input_size": list(plan.data.inputs.shape[1:])}
        save_artefact(run.path, fitted.model.cpu(), [], source, meta)
        tiles = [Tile(name=key, value=f"{value:.4g}") for key, value in measured.numbers.items()]
        sentence = f"{self.name}: {', '.join(measured.lines())}."
        page = Page(title=name, badge="Trained", sentence=sentence, tiles=tiles, data=measured.to_dict())
        write_report(run, page)
        run.log("finished", command=command)

    def evaluate(
        self,
        target: str | Path,
        data: str | Path,
        *,
        out: str | Path | None = None,
        overwrite: bool = False,
        device: str = "cpu",
        **more: Any,
    ) -> Measured:
        """Measure a run on the rows that judge."""
        check_out(out, ("evaluation.json",), overwrite)
        model, found = self._loaded(target).model.to(device_of(device)), self._arrays(data)
        held = found.rows("test")
        result = Measured(self._numbers(model, found, held), f"on {len(held)} rows that did not train")
        if out is not None:
            text = json.dumps(result.to_dict(), indent=1) + "\n"
            atomic_write_text(make_folder(out) / "evaluation.json", text)
        return result

    def predict(
        self,
        run: str | Path,
        inputs: str | Path,
        *,
        out: str | Path,
        overwrite: bool = False,
        resume: bool = False,
        device: str = "cpu",
        **more: Any,
    ) -> Measured:
        """Write the outputs of all rows to ``predictions.npz``."""
        check_out(out, ("predictions.npz",), overwrite or resume)
        found = self._arrays(inputs)
        outputs = self._outputs(self._loaded(run).model.to(device_of(device)), found.inputs)
        buffer = io.BytesIO()
        np.savez(buffer, outputs=outputs, names=np.array(list(found.names), dtype=str))
        atomic_write_bytes(make_folder(out) / "predictions.npz", buffer.getvalue())
        return Measured({"rows": float(len(outputs))}, f"in {Path(out) / 'predictions.npz'}")

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """Rows that trained calibrate, the others are held out."""
        import torch

        from fewer.data.images import ImageSet

        data = self._arrays(folder)
        rows = data.rows("test" if part == "heldout" else "train")
        chosen = np.random.default_rng([seed, 5]).permutation(rows)[:count]
        names = list(data.names) or [str(row) for row in range(len(data.inputs))]
        files = [Path(folder) / names[row] for row in chosen]
        return ImageSet(torch.from_numpy(data.inputs[chosen]).float(), files, [])

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Any:
        """The numbers of :meth:`measure` on the rows that judge."""
        return _ArrayQuality(self, self._arrays(folder))

    def _arrays(self, data: Any) -> Arrays:
        if isinstance(data, Arrays):
            return data
        if not Path(data).exists():
            raise FewerError(f"{data} does not exist; give {self.data}")
        try:
            found = self.read(Path(data))
        except (OSError, ValueError, KeyError, EOFError) as error:  # whatever a reader of files raises
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise FewerError(f"{data} cannot be read ({told}); give {self.data}") from None
        if len(found.inputs) < round(1 / HELD):
            raise FewerError(f"{data} has {len(found.inputs)} rows; give {round(1 / HELD)} at least")
        return found

    def _loaded(self, run: str | Path) -> LoadedModel:
        from fewer.models.spec import load_model

        if not (Path(run) / "recipe.json").is_file():
            raise FewerError(f"{run} is no run folder with a model; train one: fewer train DATA --task {self.name}")
        return load_model(str(run))

    def _numbers(self, model: nn.Module, data: Arrays, rows: np.ndarray) -> dict[str, float]:
        found = self.measure(self._outputs(model, data.inputs[rows]), data.targets[rows])
        return {name: float(value) for name, value in found.items()}

    @staticmethod
    def _outputs(model: nn.Module, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
        import torch

        from fewer.models.running import evaluating

        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with evaluating(model), torch.no_grad():
            parts = torch.from_numpy(inputs).float().split(batch)
            return np.concatenate([model(part.to(device)).float().cpu().numpy() for part in parts])


@dataclass(frozen=True, eq=False)
class _ArrayQuality:
    task: ArrayTask
    data: Arrays

    @property
    def lower_is_better(self) -> frozenset[str]:
        return self.task.lower_is_better

    @property
    def note(self) -> str:
        return f"on {len(self.data.rows('test'))} rows that did not train"

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        return self.task._numbers(model, self.data, self.data.rows("test"))
