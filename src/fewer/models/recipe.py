"""``recipe.json``: how to build the model again and what was done to it. Readable, strict, no code inside."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fewer.core.errors import FewerError
from fewer.core.reading import parse_json, read_text

SCHEMA_VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class UnitRecord(_Strict):
    """One unit's option and how its weight is stored.

    ``mask`` is set only for a dense-stored unit whose kept entries include exact zeros: base64 of the mask's bits.
    ``stored_as`` is the precision of the stored values; empty for those of the model itself.
    """

    name: str
    pattern: str
    sparsity: float = Field(ge=0, le=1)
    precision: str
    storage: str = Field(pattern="^(dense|packed)$")
    shape: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = Field(min_length=1, max_length=8)
    kept: int = Field(ge=0)
    mask: str | None = None
    stored_as: str = Field(default="", pattern="^(|bf16|fp16|int8|int4)$")


class TokenRecord(_Strict):
    """Tokens merged after each transformer block, by its name in the order of execution.

    As :func:`fewer.tokens.blocks.merge_after` takes them.
    """

    amounts: dict[str, Annotated[int, Field(ge=0, le=2**31)]] = Field(min_length=1)
    protected: int = Field(ge=0)


class PixelRecord(_Strict):
    """Pixels that stay along each side of an image, of how many, and by what the answer is multiplied.

    As :func:`fewer.kernels.pixels.fewer_pixels` takes them.
    """

    kept: int = Field(ge=1, le=2**31)
    of: int = Field(ge=1, le=2**31)
    gain: float = Field(gt=0, le=1e3)


class FrameRecord(_Strict):
    """Of every so many frames along an axis, the first stays (:func:`fewer.kernels.frames.fewer_frames`)."""

    every: int = Field(ge=2, le=2**31)
    axis: int = Field(ge=1, le=2)


class Recipe(_Strict):
    """Everything beside the tensors.

    ``tokens`` says how many tokens are merged after which transformer block, and how many in front are never merged.
    ``pixels`` says how many pixels of each side of an image the model keeps, where it makes it smaller.
    ``frames`` says which frames of a sequence it looks at, where it leaves some out.
    ``integers`` says which integer method stands for a function in which module, as
    :func:`fewer.approximate.sites.approximate` takes them. ``aside`` holds prints of what no file of weights holds
    (:mod:`fewer.models.aside`).
    """

    schema_version: int
    source: dict[str, Any]
    preprocess: dict[str, Any] | None = None
    units: list[UnitRecord]
    aliases: dict[str, str] = Field(default_factory=dict)
    tokens: TokenRecord | None = None
    pixels: PixelRecord | None = None
    frames: FrameRecord | None = None
    integers: dict[str, dict[str, str]] = Field(default_factory=dict)
    aside: dict[str, tuple[float, float, float]] = Field(default_factory=dict, max_length=200)
    provenance: str = ""
    weights_sha256: str
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("meta")
    @classmethod
    def _known_facts(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "input_size" in value:  # of a model that a task trained; tuples where it was not read from a file
            size = value["input_size"]
            good = isinstance(size, (list, tuple)) and 1 <= len(size) <= 5
            if not good or not all(type(side) is int and 1 <= side <= 2**20 for side in size):
                raise ValueError(f"input_size={str(size)[:40]} is no size of an input")
        if not isinstance(value.get("task"), (str, NoneType)):
            raise ValueError("task must be a name")
        return value

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Sides of one input without the batch, of a task's model or of one that takes images; None if not known."""
        size = self.meta.get("input_size") or (self.preprocess or {}).get("input_size")
        return None if size is None else tuple(size)

    def to_json(self) -> str:
        """Indented JSON."""
        return self.model_dump_json(indent=1) + "\n"


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    FewerError
        When the file is missing, is not JSON, has another schema version, an unknown key (with the nearest one),
        a missing key or a value of the wrong kind.
    """
    if not path.exists():
        raise FewerError(f"{path} does not exist; give the folder that a run was saved to")
    text = read_text(path, what="recipe")
    raw = parse_json(text, str(path), finite=True)
    if not isinstance(raw, dict):
        raise FewerError(f"{path} is not a recipe: it holds no JSON object")
    version = raw.get("schema_version")
    if version is None and "settings" in raw:  # a task keeps such runs in a form of its own
        raise FewerError(
            f"{path} is of a run that holds no whole network; make one of it: "
            "fewer compress RUN --images FOLDER --budget weights=50%"
        )
    if version != SCHEMA_VERSION:
        raise FewerError(
            f"{path} has schema version {version!r}, this fewer reads {SCHEMA_VERSION}; "
            "use the version of fewer that wrote it"
        )
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        raise FewerError(f"{path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    keys = list(problem["loc"])
    where = ".".join(map(str, keys))
    if problem["type"] == "extra_forbidden":
        fields = UnitRecord.model_fields if len(keys) > 1 else Recipe.model_fields
        near = get_close_matches(str(keys[-1]), fields, 1)
        return f"unknown key {where!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}")
    if problem["type"] == "missing":
        return f"the key {where!r} is missing; save the run again"
    return f"{where}: {problem['msg']}"


def refuse_integers(recipe: Recipe, run: object, what: str) -> None:
    """Tell that integers stand for functions of a run in plain torch only, where something else was asked for.

    Raises
    ------
    FewerError
        For a run that was made with ``--approximate``.
    """
    if recipe.integers:
        raise FewerError(
            f"{run} was made with --approximate, and integers stand for its functions in plain torch only: {what}"
        )


def precisions_of(recipe: Recipe) -> dict[str, str]:
    """The precision of every unit of a saved model that a kernel can run at: ``fp32``, ``bf16`` or ``int8``."""
    runs_as = {"fp16": "bf16", "int4": "int8"}
    return {unit.name: runs_as.get(unit.precision, unit.precision) for unit in recipe.units}
