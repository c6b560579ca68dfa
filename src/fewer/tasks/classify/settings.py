"""Everything that a training, an evaluation or a prediction of a classifier can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

__all__ = ["EvaluateSettings", "PredictSettings", "TrainSettings"]


class TrainSettings(LoopSettings):
    """Settings of the training of a classifier.

    Examples
    --------
    >>> TrainSettings(steps=100).network
    'auto'
    """

    network: str = Field(
        json_schema_extra={"group": "Network"},
        default="auto",
        description="A network for small images (see: fewer list networks), or any model whose output is a score per "
        "class: fewer/NAME, timm/NAME, hf/NAME, FILE.py:FUNCTION. auto takes that of the run in --init, else resnet20.",
    )
    init: str | None = Field(
        json_schema_extra={"group": "Network"},
        default=None,
        description="A run folder, whose network, masks and precisions stay, or a file of weights of the network "
        "(.pth, .safetensors), to start from.",
    )
    input_size: int = Field(
        json_schema_extra={"group": "Images"},
        default=0,
        ge=0,
        description="Side of the input in pixels; 0 is that of the network.",
    )
    augment: Literal["none", "flip", "standard"] = Field(
        json_schema_extra={"group": "Images"},
        default="standard",
        description="none, flip (left-right), or standard (flips, and shifts by an eighth of the side for small "
        "images or random crops for large ones).",
    )
    label_smoothing: float = Field(
        json_schema_extra={"group": "How it learns"},
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a label spread over all classes.",
    )
    validate_share: float = Field(
        json_schema_extra={"group": "Images"},
        default=0.2,
        ge=0,
        lt=1,
        description="Share of each class that judges, where the data set has no part for it.",
    )
    subject: str = Field(
        json_schema_extra={"group": "Images"},
        default="auto",
        description="Images of one subject are on one side of a split: auto (told from names such as sub01_z012, and "
        "said), none, or a regular expression whose first group is the subject.",
    )
    batch: int = Field(default=64, ge=1, description="Images per step.")
    teacher: str | None = Field(
        json_schema_extra={"group": "Teacher"},
        default=None,
        description="A classifier of the same classes to learn from: a run folder, or a model's name.",
    )
    distill: str | None = Field(
        json_schema_extra={"group": "Teacher"},
        default=None,
        description="What is learnt of it. See: fewer list distillation. kd where --teacher is given.",
    )
    distill_weight: float = Field(
        json_schema_extra={"group": "Teacher"},
        default=1.0,
        gt=0,
        description="Weight of its loss beside that of labels.",
    )
    bits: str | None = Field(
        json_schema_extra={"group": "Few bits"},
        default=None,
        description="Bits of weights, inputs of layers and gradients, such as w4a4g4, w8a8, wta4 (ternary) or g4.",
    )
    quantiser: str = Field(
        json_schema_extra={"group": "Few bits"},
        default="auto",
        description="How weights and inputs are rounded. See: fewer list quantisers. auto takes lsq below 8 bits, and "
        "at 8 bits ste, which fits the integers of kernels.",
    )
    gradients: str = Field(
        json_schema_extra={"group": "Few bits"},
        default="stochastic-sample",
        description="How gradients are rounded, see: fewer list gradients; or a hypernetwork, see: fewer list "
        "hypernetworks, also over another rounding: metagrad+nearest.",
    )
    gradient_place: Literal["both", "error", "weight"] = Field(
        json_schema_extra={"group": "Few bits"},
        default="both",
        description="Which backward product sees rounded gradients: error (of the input), weight, or both.",
    )
    meta_loss: Literal["next", "exact", "both"] = Field(
        json_schema_extra={"group": "Few bits"},
        default="next",
        description="What a hypernetwork learns from: the next iteration, now and then exact gradients, or both.",
    )
    exact_every: int = Field(
        json_schema_extra={"group": "Few bits"},
        default=20,
        ge=1,
        description="Steps between exact gradients for the hypernetwork; each costs a pass in fp32.",
    )
    edges: Literal["8", "fp32", "same"] = Field(
        json_schema_extra={"group": "Few bits"},
        default="8",
        description="First and last layer: 8 bits, fp32, or the same bits as the others.",
    )


class EvaluateSettings(StrictSettings):
    """What an evaluation can be told.

    Examples
    --------
    >>> EvaluateSettings().part
    'auto'
    """

    part: str = Field(
        default="auto",
        description="test, train or all of a data set that has parts; auto takes test where it is, and of the data "
        "that a run was trained on what did not train.",
    )
    class_names: str | None = Field(
        default=None, description="A file with the class names in the order of the model's outputs, .txt or .json."
    )
    batch: int = Field(default=64, ge=1, description="Images at once.")
    limit: int = Field(default=0, ge=0, description="Most images to score, drawn with seed 0; 0 takes all.")
    where: Literal["torch", "kernels", "onnxruntime", "openvino"] = Field(
        default="torch",
        description="What runs the model of a run folder: torch, the native kernels of this machine, or a runtime with "
        "the file that fewer export has written.",
    )
    file: str | None = Field(
        default=None, description="The exported file for onnxruntime and openvino; model.onnx of the run by default."
    )


class PredictSettings(StrictSettings):
    """What a prediction can be told.

    Examples
    --------
    >>> PredictSettings().top
    5
    """

    top: int = Field(default=5, ge=1, description="Classes per image, the most probable first.")
    class_names: str | None = Field(
        default=None, description="A file with the class names in the order of the model's outputs, .txt or .json."
    )
    batch: int = Field(default=64, ge=1, description="Images at once.")
