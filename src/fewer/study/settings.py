"""What the owner of a study chooses."""

from __future__ import annotations

from pydantic import Field, field_validator

from fewer.core.errors import FewerError
from fewer.core.strict import StrictSettings

__all__ = ["FORMS", "StudySettings"]

FORMS = ("pathway", "acr", "pair", "yes-no")
"""What a rater can be asked: a text, a level, the better of two images, a question."""


class StudySettings(StrictSettings):
    """Settings of a study.

    Examples
    --------
    >>> StudySettings(forms=("acr",)).warn_after
    30
    """

    title: str = Field(default="How does this image look?", description="What raters see as the name of the study.")
    forms: tuple[str, ...] = Field(default=("pathway",), description="pathway, acr, pair and yes-no, in their order.")
    raters: int = Field(default=10, ge=1, le=5000, description="Invitation codes to make.")
    per_rater: int = Field(default=0, ge=0, description="Images per rater and form; 0 shows all.")
    show_score: bool = Field(default=True, description="Show the opinion score of an image where one is known.")
    repeats: float = Field(default=0.05, ge=0, le=0.5, description="Share of images that come twice.")
    training: bool = Field(default=True, description="Train raters on reference images first.")
    warn_after: int = Field(default=30, ge=1, description="Images in a row before a warning.")
    pause_after: int = Field(default=50, ge=1, description="Images in a row before a pause.")
    pause_seconds: float = Field(default=300.0, ge=0, description="Length of the pause.")
    questions: tuple[str, ...] = Field(
        default=("Is this image blurry?", "Is there visible noise?"), description="Of the form yes-no."
    )
    requests_per_minute: int = Field(default=240, ge=10, description="Most requests of one rater in a minute.")
    seed: int = Field(default=0, ge=0, description="Of orders and repeats.")

    @field_validator("forms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [form for form in value if form not in FORMS]
        if wrong or not value:
            raise ValueError(f"unknown form {wrong[0] if wrong else ''!r}; known are {', '.join(FORMS)}")
        twice = [form for form in FORMS if value.count(form) > 1]
        if twice:
            raise ValueError(f"the form {twice[0]!r} is given twice; name each once")
        return value

    @field_validator("questions")
    @classmethod
    def _asked(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        asked = tuple(" ".join(question.split()) for question in value)
        if not asked or not all(asked):
            raise ValueError("there must be a question of the form yes-no at least, and none that is empty")
        return asked

    @classmethod
    def read(cls, text: str) -> StudySettings:
        """From the JSON that a study keeps.

        Raises
        ------
        FewerError
            When it is damaged.
        """
        from fewer.core.reading import parse_json

        values = parse_json(text, "the settings of the study")
        if not isinstance(values, dict):
            raise FewerError("the settings of the study are damaged; restore the file study.sqlite from a backup")
        # studies of older versions may have a form twice, or an empty question
        if isinstance(values.get("forms"), list):
            values["forms"] = list(dict.fromkeys(values["forms"]))
        asked = [question for question in values.pop("questions", None) or () if str(question).split()]
        return cls.of({**values, "questions": asked} if asked else values, "the study")
