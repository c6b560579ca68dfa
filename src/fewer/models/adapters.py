"""Optional model libraries: imported only when a spec names them; an architecture never needs the network."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Preprocess
from fewer.models.foreign import build_within, plain_name

_kept_alive: list[Any] = []


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    A CUDA build of torchvision beside a CPU build of torch stops at its own import because two operator schemas
    are missing. They are declared here, on exactly that failure, and the import is tried once more; models and tensor
    transforms then work, the compiled operators do not.

    Raises
    ------
    FewerError
        When torchvision is not installed or still does not import.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError:
        raise FewerError("this model needs torchvision, which is not installed; run: pip install torchvision") from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]  # the half-made modules of the first attempt
    library = torch.library.Library("torchvision", "DEF")
    for op in ("nms", "qnms"):
        library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)  # the schemas vanish with the object
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise FewerError(f"torchvision does not work beside torch {torch.__version__}: {error}") from error


def import_timm() -> Any:
    """Import timm.

    Raises
    ------
    FewerError
        When timm or its torchvision is not installed.
    """
    if importlib.util.find_spec("timm") is None:
        raise FewerError("a timm/ model needs timm, which is not installed; run: pip install 'fewer[timm]'")
    import_torchvision()
    return importlib.import_module("timm")


def timm_model(name: str, pretrained: bool, **kwargs: Any) -> tuple[nn.Module, Preprocess]:
    """Create a timm model and read its preprocessing.

    Parameters
    ----------
    name : str
        As in ``timm.list_models()``.
    pretrained : bool
        Load weights (from timm's cache or the network); False never touches the network.
    **kwargs
        Passed to ``timm.create_model``.

    Raises
    ------
    FewerError
        When timm is missing, the name is unknown (with the nearest one) or the weights cannot be had.
    """
    timm = import_timm()
    known = timm.list_models()
    if name.split(".")[0] not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean 'timm/{near[0]}'?" if near else "see timm.list_models()"
        raise FewerError(f"timm has no model {name!r}; {hint}")
    try:
        model = timm.create_model(name, pretrained=pretrained, **kwargs)
    except (OSError, RuntimeError, ValueError) as error:
        raise FewerError(
            f"the weights of timm/{name} could not be loaded ({type(error).__name__}: {error}); "
            "download them once with a network, or use a model listed by list_models()"
        ) from error
    config = timm.data.resolve_data_config({}, model=model)
    interpolation = config["interpolation"]
    settings = Preprocess(
        input_size=tuple(config["input_size"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        crop=float(config["crop_pct"]),
    )
    return model, settings


def torchvision_model(name: str, pretrained: bool, **kwargs: Any) -> tuple[nn.Module, Preprocess]:
    """Create a classifier of torchvision and read how its weights want images.

    Parameters
    ----------
    name : str
        As in ``torchvision.models.list_models()``.
    pretrained : bool
        Load its default weights (from torch's cache or the network); False never touches the network.
    **kwargs
        Passed to the model's builder.

    Raises
    ------
    FewerError
        When torchvision is missing, the name is unknown (with the nearest one) or the weights cannot be had.
    """
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)  # classifiers; detectors and others are in modules of their own
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean 'torchvision/{near[0]}'?" if near else "see torchvision.models.list_models()"
        raise FewerError(f"torchvision has no classifier {name!r}; {hint}")
    weights = models.get_model_weights(name).DEFAULT
    try:
        model = models.get_model(name, weights=weights if pretrained and not kwargs else None, **kwargs)
    except (OSError, RuntimeError, ValueError) as error:
        raise FewerError(
            f"the weights of torchvision/{name} could not be loaded ({type(error).__name__}: {error}); "
            "download them once with a network, or give a file with --checkpoint"
        ) from error
    if pretrained and kwargs:
        raise FewerError(f"torchvision/{name} with another number of classes has no weights; give a file: checkpoint=")
    return model, _torchvision_preprocess(weights)


def _torchvision_preprocess(weights: Any) -> Preprocess:
    wanted = weights.transforms()
    crop, resize = wanted.crop_size[0], wanted.resize_size[0]
    interpolation = str(getattr(wanted.interpolation, "value", wanted.interpolation))
    return Preprocess(
        input_size=(3, crop, crop),
        mean=tuple(wanted.mean),
        std=tuple(wanted.std),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        crop=min(1.0, crop / resize),
    )


class TensorOutput(nn.Module):
    """A transformers model that takes images and gives one tensor: logits, or the last hidden state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=images)
        logits = getattr(output, "logits", None)
        return output.last_hidden_state if logits is None else logits


def import_transformers() -> Any:
    """Import transformers, also beside a torchvision that does not fit the installed torch, which it would import.

    Raises
    ------
    FewerError
        When it is not installed.
    """
    if importlib.util.find_spec("torchvision") is not None:
        with contextlib.suppress(FewerError):
            import_torchvision()
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise FewerError(
            "an hf/ model needs transformers, which is not installed; run: pip install 'fewer[hf]'"
        ) from None


def _class_of(transformers: Any, name: str) -> Any:
    """A class by name; None where there is none, or one that cannot be imported here."""
    try:
        return getattr(transformers, name, None)
    except (ImportError, RuntimeError):  # what it needs is missing, or broken
        return None


def hf_model(name: str) -> tuple[nn.Module, dict[str, Any], Preprocess]:
    """Load a transformers vision model from a local folder, the cache or the hub.

    Returns
    -------
    model : TensorOutput
    config : dict
        ``{"architecture": class name, "config": the model's own config}``.
    preprocess : Preprocess

    Raises
    ------
    FewerError
        When transformers is missing, or the model cannot be had or is not a vision model.
    """
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        classes = [_class_of(transformers, c) for c in config.architectures or []]
        cls = next((c for c in classes if c is not None), transformers.AutoModel)
        model = cls.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FewerError(
            f"hf/{name} could not be loaded ({reason}); give a local folder, or download it once with a network"
        ) from error
    size = getattr(config, "image_size", 224) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    except (OSError, ValueError, ImportError, AttributeError):
        pass  # a folder without a processor file: ImageNet's numbers are the usual ones
    described = {"architecture": type(model).__name__, "config": config.to_dict()}
    return TensorOutput(model), described, Preprocess((3, height, width), mean, std)


_HF_IGNORED = (
    "_name_or_path", "name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "auto_map",
    "custom_pipelines", "_commit_hash", "model_type", "trust_remote_code",
)  # fmt: skip
"""Entries of a transformers configuration that describe where it came from, and are not needed to build it."""

_HF_REFUSED = re.compile(
    r"attn_implementation|experts_implementation|kernel|quantization|backbone|pretrained|checkpoint|url|path|code$"
)
"""Entries that make transformers fetch or run something; an empty value is harmless."""


def hf_architecture(described: Any, room: int) -> nn.Module:
    """Build a transformers model from its config alone, with random weights and no network.

    Raises
    ------
    FewerError
        When transformers is missing or does not know the class, the class is no model, or the config would make
        transformers fetch something.
    """
    if not isinstance(described, dict) or not isinstance(described.get("config"), dict):
        raise FewerError("the hf model source lacks its config; pass architecture= a factory")
    config = {key: value for key, value in described["config"].items() if key not in _HF_IGNORED}
    _check_hf(config)
    kind = plain_name(described["config"].get("model_type"), "transformers model type")
    name = plain_name(described.get("architecture"), "transformers class")
    transformers = import_transformers()
    cls = _class_of(transformers, name)
    if cls is None:
        raise FewerError(
            f"the installed transformers {transformers.__version__} has no class {name!r}; "
            "install the version that made this model, or pass architecture= a factory"
        )
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise FewerError(f"the recipe names {name!r} of transformers, which is no model")
    make = lambda: TensorOutput(cls(transformers.AutoConfig.for_model(kind, **config)))  # noqa: E731
    return build_within(make, room, f"the transformers model {name} of the recipe")


def _check_hf(config: dict[str, Any], where: str = "") -> None:
    for key, value in config.items():
        if not isinstance(key, str) or (_HF_REFUSED.search(key.lower()) and value not in (None, False, "", [], {})):
            raise FewerError(f"the recipe's transformers config has {where}{key}, which no recipe may give")
        if isinstance(value, dict) and key not in ("id2label", "label2id"):
            inner = {k: v for k, v in value.items() if k not in _HF_IGNORED or k == "model_type"}
            value.clear()
            value.update(inner)
            _check_hf(value, f"{where}{key}.")
