"""Model specs: one string (or object) that says which model is meant, and how to build it again without weights."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.display import Fact, Shown, counted
from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.reading import read_bytes
from fewer.data.preprocess import Preprocess
from fewer.kernels.copies import set_evaluating
from fewer.models import builtin
from fewer.models.build import Source
from fewer.models.computed import fold_computed
from fewer.models.foreign import alone
from fewer.models.options import SpecOptions, load_checkpoint, read_checkpoint, split_spec
from fewer.models.plain import make_plain, own_copy, uncompiled
from fewer.models.strangers import refuse_not_finite, refuse_strangers
from fewer.models.trust import check_trusted, note_run, remember_named, was_named


@dataclass(frozen=True, repr=False)
class LoadedModel(Shown):
    """A model in evaluation mode, how its input is made, and how to build its architecture again.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    name : str
        For people: the spec, or the class name of an object.
    source : dict
        JSON values that :func:`build_architecture` turns into the same architecture without weights.
    preprocess : Preprocess
        From image file to input tensor.
    task : str, optional
        A hint: ``classify``, ``features`` or None; or the task that the model was trained for, such as ``segment``.
    meta : mapping
        What the task of a trained model keeps with it, as JSON values.
    assumed : bool
        Nothing says how images become its input: those are ImageNet's usual numbers.
    stored : mapping
        The precision of every layer that a run stores in less than fp32, by the layer's name.
    """

    model: nn.Module
    name: str
    source: Source
    preprocess: Preprocess = field(default_factory=Preprocess)
    task: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    assumed: bool = False
    stored: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> tuple[str, list[Fact]]:
        """What it is, and how its input is made: the numbers that are most often wrong."""
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        mean, std = (", ".join(f"{number:.3g}" for number in numbers) for numbers in (self.mean, self.std))
        return f"Model {self.name}", [
            ("class", f"{type(self.model).__name__}, {counted(weights, 'parameter')}"),
            ("input", " x ".join(map(str, self.input_size))),
            ("pixels", f"minus {mean}; over {std}; {self.interpolation}, crop {self.crop:g}"),
            ("", "assumed, as the model does not say it" if self.assumed else ""),
            ("task", self.task or ""),
        ]

    @property
    def input_size(self) -> tuple[int, ...]:
        """(channels, height, width) of one input; of a volume ``(channels, *space)``."""
        return tuple(self.meta.get("input_size", self.preprocess.input_size))

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel, on the 0..1 scale."""
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel, on the 0..1 scale."""
        return self.preprocess.std

    @property
    def interpolation(self) -> str:
        """Name of the resampling filter."""
        return self.preprocess.interpolation

    @property
    def crop(self) -> float:
        """Side of the centre crop divided by the resized shorter side."""
        return self.preprocess.crop


def list_models() -> list[str]:
    """Names that :func:`load_model` knows without any extra package, in alphabetical order.

    Examples
    --------
    >>> "fewer/mobilenet-v2" in list_models()
    True
    """
    return sorted(f"fewer/{name}" for name in builtin.MODELS)


def load_model(spec: str | nn.Module, **preprocess: Any) -> LoadedModel:
    """Load the model that a spec names.

    Parameters
    ----------
    spec : str or nn.Module
        ``fewer/NAME`` (see :func:`list_models`), ``timm/NAME``, ``torchvision/NAME``, ``hf/NAME``,
        ``path.py:function``, a run folder that holds a model, a checkpoint of OpenPCDet or OpenGait, or a module.
        ``path.py:function`` runs the code of that file. Options may follow:
        ``timm/resnet50?checkpoint=best.safetensors&input_size=96``
        (:mod:`fewer.models.options`).
        The function of a file returns a module, or (module, settings) where the settings are those of
        :class:`~fewer.data.preprocess.Preprocess`.
    **preprocess
        Overrides of single preprocessing settings, for example ``input_size=(3, 96, 96)``.

    Returns
    -------
    LoadedModel
        With the model in evaluation mode.

    Raises
    ------
    FewerError
        When the spec names nothing, an extra or an asset package is missing, the user's file fails, or weights are NaN.

    Examples
    --------
    >>> load_model("fewer/vit-small-16").input_size
    (3, 224, 224)
    >>> load_model("fewer/vit-small-16")
    Model fewer/vit-small-16
      class   VisionTransformer, 22,050,664 parameters
      input   3 x 224 x 224
      pixels  minus 0.485, 0.456, 0.406; over 0.229, 0.224, 0.225; bicubic, crop 0.9
      task    classify
    """
    if isinstance(spec, nn.Module):
        loaded = _from_object(uncompiled(spec))
        refuse_not_finite(loaded.model)
    elif not isinstance(spec, str):
        raise FewerError(f"a model is given as a spec string or an nn.Module; got {type(spec).__name__}")
    else:
        base, options = split_spec(spec)
        loaded = _named(base, options)
        preprocess = {**options.preprocess, **preprocess}
    settings, assumed = loaded.preprocess, loaded.assumed and not preprocess
    if preprocess:
        kept = settings.to_dict()
        if "input_size" in preprocess and preprocess["input_size"][0] != settings.input_size[0]:
            kept |= {"mean": (), "std": ()}  # numbers for three channels say nothing of one
        settings = Preprocess.of(kept | preprocess, f"model {loaded.name}")
    set_evaluating(loaded.model)
    if isinstance(spec, str):
        refuse_strangers(loaded.model)
        refuse_not_finite(loaded.model)
        make_plain(loaded.model)
    return replace(loaded, preprocess=settings, assumed=assumed)


def _named(spec: str, options: SpecOptions) -> LoadedModel:
    """The model of a spec without its options for preprocessing."""
    if is_file_spec(spec):
        loaded = _from_file(spec)
    elif (Path(spec) / "recipe.json").is_file():
        loaded = _from_run(spec)
    elif (own := _from_weights(spec, options.config)) is not None:
        loaded, options = own, replace(options, config=None)
    else:
        kind, _, name = spec.partition("/")
        if kind not in _LOADERS or not name:
            given = (
                "a model is given as fewer/NAME, timm/NAME, torchvision/NAME, hf/NAME, FILE.py:FUNCTION "
                "or the folder of a run"
            )
            if Path(spec).is_dir():
                raise FewerError(f"the folder {spec} holds no finished run, for it has no recipe.json; {given}")
            _refuse_no_module(spec)
            near = get_close_matches(spec, list_models(), 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"built in are {', '.join(list_models())};"
            raise FewerError(f"unknown model {spec!r}; {hint} {given}")
        loaded = _LOADERS[kind](name, options)
        options = replace(options, classes=None)  # they are in the architecture now
    if options.classes is not None:
        raise FewerError(f"the number of classes of {spec} is its own; leave classes={options.classes} out")
    if options.config is not None:
        raise FewerError(f"config={options.config} describes a checkpoint of OpenPCDet, which {spec} is not")
    if options.checkpoint is not None and not _took_weights(loaded, options.checkpoint):
        load_checkpoint(loaded.model, options.checkpoint)
    return loaded


_GRAPHS = {
    ".onnx": "ONNX",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".h5": "Keras",
    ".keras": "Keras",
    ".xml": "OpenVINO",
    ".caffemodel": "Caffe",
}
_READ = (".pt", ".pth", ".ckpt", ".safetensors")
_WEIGHTS = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".safetensors", ".npz")


def _refuse_no_module(spec: str) -> None:
    """Refuse files that hold a network of another library, or weights alone, with the way that leads on from there."""
    path = Path(spec)
    ending = path.suffix.lower()
    if ending == ".onnx":
        raise FewerError(
            f"{path.name} is an ONNX graph, and fewer cuts networks of PyTorch; pip install onnx2torch, write net.py "
            f"with 'from onnx2torch import convert' and 'def make(): return convert({spec!r})', and give net.py:make"
        )
    if ending in _GRAPHS:
        raise FewerError(
            f"{path.name} is a file of {_GRAPHS[ending]}, and fewer cuts networks of PyTorch; write the network in "
            "PyTorch, fill it from that file, and give FILE.py:FUNCTION"
        )
    if ending in _WEIGHTS and _is_script(path):
        raise FewerError(
            f"{path.name} is TorchScript, whose layers cannot be watched or changed; give the Python module that it "
            "was made from: FILE.py:FUNCTION, or timm/NAME, torchvision/NAME"
        )
    if ending in _WEIGHTS:
        raise FewerError(
            f"{path.name} is a file of weights, which do not say what network they are for; give the network with them "
            f"(timm/NAME or FILE.py:FUNCTION, with --checkpoint {path.name}), or FILE.py:FUNCTION that loads them; "
            "only checkpoints of OpenPCDet and OpenGait are models by themselves"
        )


def is_model(target: str | Path) -> bool:
    """Whether a run folder with a model, or a file of weights, is meant, and no folder of other things.

    Examples
    --------
    >>> is_model("no-such-run")
    False
    """
    place = Path(split_spec(str(target))[0])
    return (place / "recipe.json").is_file() or place.is_file()


def _is_script(path: Path) -> bool:
    """Whether a file is an archive with a program of ``torch.jit.save``; no code of it is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def is_file_spec(spec: str) -> bool:
    """Whether a spec names a Python file, and not a model of a library.

    Examples
    --------
    >>> is_file_spec("net.py:make"), is_file_spec("timm/some.python_model")
    (True, False)
    """
    return ".py" in spec and not spec.startswith(("timm/", "torchvision/", "hf/", "fewer/"))


def _from_builtin(name: str, options: SpecOptions) -> LoadedModel:
    entry = builtin.entry(name)
    args = {} if options.classes is None else {"num_classes": options.classes}
    if args and "num_classes" not in inspect.signature(entry.cls).parameters:
        raise FewerError(f"the number of classes of fewer/{name} is fixed; leave classes={options.classes} out")
    if args and entry.state is not None and options.checkpoint is None:
        raise FewerError(
            f"the weights of fewer/{name} are for another number of classes than {options.classes}; give those of your "
            "network: checkpoint=FILE, on the command line --checkpoint FILE"
        )
    model = builtin.build(name, args)
    if entry.state is not None and options.checkpoint is None:
        model.load_state_dict(entry.state(), strict=True)
    source = {"kind": "builtin", "name": name, "args": args}
    return LoadedModel(model, f"fewer/{name}", source, entry.preprocess, entry.task)


def _from_timm(name: str, options: SpecOptions) -> LoadedModel:
    from fewer.models import adapters

    kwargs = {} if options.classes is None else {"num_classes": options.classes}
    model, preprocess = adapters.timm_model(name, pretrained=options.checkpoint is None, **kwargs)
    task = "classify" if getattr(model, "num_classes", 0) else "features"
    return LoadedModel(model, f"timm/{name}", {"kind": "timm", "name": name, "kwargs": kwargs}, preprocess, task)


def _from_torchvision(name: str, options: SpecOptions) -> LoadedModel:
    from fewer.models import adapters

    kwargs = {} if options.classes is None else {"num_classes": options.classes}
    model, preprocess = adapters.torchvision_model(name, pretrained=options.checkpoint is None, **kwargs)
    source = {"kind": "torchvision", "name": name, "kwargs": kwargs}
    return LoadedModel(model, f"torchvision/{name}", source, preprocess, "classify")


def _from_hf(name: str, options: SpecOptions) -> LoadedModel:
    from fewer.models import adapters

    if options.classes is not None:
        raise FewerError(f"hf/{name} has its classes in its own configuration; leave classes={options.classes} out")
    model, config, preprocess = adapters.hf_model(name)
    return LoadedModel(model, f"hf/{name}", {"kind": "hf", "config": config}, preprocess)


_LOADERS: dict[str, Callable[[str, SpecOptions], LoadedModel]] = {
    "fewer": _from_builtin,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "hf": _from_hf,
}


def _from_object(model: nn.Module) -> LoadedModel:
    cls = type(model)
    source = {"kind": "object", "class": f"{cls.__module__}:{cls.__qualname__}"}
    return LoadedModel(model, cls.__name__, source, assumed=True)


def _from_file(spec: str) -> LoadedModel:
    from fewer.models import userfile

    path, function = userfile.split(spec)
    made, sha256 = userfile.call(path, function)
    note_run(path, sha256)
    settings: Mapping[str, Any] = {}
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping):
        made, settings = made
    if not isinstance(made, nn.Module):
        raise FewerError(
            f"{path}:{function} must return an nn.Module or (nn.Module, dict); it returned {type(made).__name__}"
        )
    source = {"kind": "file", "path": str(real_path(path)), "function": function, "sha256": sha256}
    preprocess = Preprocess.of(settings, f"{path}:{function}")
    return LoadedModel(uncompiled(made), f"{path.name}:{function}", source, preprocess, assumed=not settings)


def _from_run(folder: str) -> LoadedModel:
    from fewer.models.artefact import load_artefact, load_recipe

    # tasks stand above this room; some keep their runs in a form of their own
    tasks = importlib.import_module("fewer.tasks")
    kind = tasks.task_of_run(folder)
    own = None if kind is None else tasks.open_task(kind).open_run(folder)
    if own is not None:
        return own
    recipe = load_recipe(folder)
    preprocess = Preprocess.of(recipe.preprocess or {}, f"{folder}/recipe.json")
    task = recipe.meta.get("task")
    stored = {unit.name: unit.precision for unit in recipe.units if unit.precision != "fp32"}
    model = load_artefact(folder)
    return LoadedModel(model, str(Path(folder)), recipe.source, preprocess, task, recipe.meta, stored=stored)


def _from_weights(spec: str, config: str | None) -> LoadedModel | None:
    """The model of a file of weights whose names a task knows; None for anything else."""
    path = Path(spec)
    if path.suffix.lower() not in _READ or not path.is_file() or _is_script(path):
        return None
    tasks, state = importlib.import_module("fewer.tasks"), read_checkpoint(path)
    found = (task.open_weights(state, spec, config) for task in tasks.usable_tasks())
    return next((one for one in found if one is not None), None)


def _took_weights(loaded: LoadedModel, checkpoint: str) -> bool:
    """Whether the task of a model has put weights into it that are laid out in a way that only the task knows."""
    tasks = importlib.import_module("fewer.tasks")
    if loaded.task not in tasks.TASKS:
        return False
    return tasks.open_task(loaded.task).load_weights(loaded.model, read_checkpoint(checkpoint), checkpoint)


def check_named(spec: Any, where: str, *, before: bool = False) -> None:
    """Raise a :class:`FewerError` unless the model that a folder names, and not the user, may be loaded.

    Parameters
    ----------
    spec
        From the folder.
    where
        The file that it stands in.
    before
        Code may also be run that the user named in an earlier process (:func:`~fewer.models.trust.was_named`): for
        work that goes on by itself.

    Raises
    ------
    FewerError
        When it is no spec, or names Python code that the user did not trust (:mod:`fewer.models.trust`).
    """
    if not isinstance(spec, str):
        raise FewerError(f"{where} names no model, but {spec!r}; give the model again")
    if is_file_spec(spec):
        base = spec.partition("?")[0]
        path = Path(base.rpartition(":")[0] or spec)
        if before and was_named(path, base.rpartition(":")[2]):
            return
        known = hashlib.sha256(read_bytes(path)).hexdigest() if path.is_file() else None
        check_trusted(path, where, known)


def remember_spec(spec: Any) -> None:
    """Remember a Python file that the user has named; see :func:`~fewer.models.trust.remember_named`."""
    if isinstance(spec, str) and is_file_spec(spec):
        path, _, function = spec.partition("?")[0].rpartition(":")
        remember_named(Path(path), function)


def load_named(spec: Any, where: str) -> LoadedModel:
    """Load the model that a run names, and not the user: no code that was not trusted, and no network.

    Parameters
    ----------
    spec, where
        See :func:`check_named`.

    Raises
    ------
    FewerError
        When it is no spec, or names Python code that the user did not trust (:mod:`fewer.models.trust`).

    Examples
    --------
    >>> load_named("evil.py:run", "config.toml")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: config.toml names Python code, evil.py, and loading it would run that code; look at \
the file, and if you trust it give --trust evil.py (in Python trust=True)
    """
    check_named(spec, where)
    if is_file_spec(spec):
        return load_model(spec)
    with alone():
        return load_model(spec)


def load_untouched(model: Any, *, fold: bool = True) -> LoadedModel:
    """Load a model; a module is copied (:func:`fewer.models.plain.own_copy`), so that the caller's is never run.

    Layers that compute their weight in every call become plain ones (:mod:`fewer.models.computed`), unless ``fold`` is
    False.

    Examples
    --------
    >>> load_untouched(nn.Linear(1, 1)).model.training
    True
    """
    if isinstance(model, LoadedModel):
        loaded = replace(model, model=own_copy(model.model))
        refuse_not_finite(loaded.model)
        return _with_own_weights(loaded) if fold else loaded
    if isinstance(model, nn.Module):
        model = own_copy(uncompiled(model))
    flags = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    loaded = load_model(model)
    for module, flag in flags:
        module.training = flag
    return _with_own_weights(loaded) if fold else loaded


def _with_own_weights(loaded: LoadedModel) -> LoadedModel:
    """A model whose layers hold the weights that they multiply with; its source says which ones did not before."""
    forms = fold_computed(loaded.model)
    if not forms:
        return loaded
    return replace(loaded, source={**loaded.source, "computed": {**loaded.source.get("computed", {}), **forms}})
