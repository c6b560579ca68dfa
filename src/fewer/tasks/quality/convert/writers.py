"""Writers of questions and conversations: rules, or a language model on this machine.

A writer is given the kind of items and one pathway, and returns JSON text, which is never trusted: see
:mod:`fewer.tasks.quality.convert.items`.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np

from fewer.data.distortions.truth import PLACES
from fewer.study.pathway import Pathway
from fewer.study.vocabulary import ASPECTS, LEVELS, statements
from fewer.tasks.quality.convert.facts import ADJECTIVE, says
from fewer.tasks.quality.language import open_language

__all__ = ["KINDS", "LocalWriter", "RuleWriter", "Writer", "instruction", "local_writer"]

KINDS = ("what-how", "yes-no", "conversation")
"""What a writer is asked for."""


class Writer(Protocol):
    """Writes items about one pathway."""

    name: str

    def write(self, kind: str, pathway: Pathway, attempt: int) -> str:
        """JSON text: a list of objects; ``attempt`` counts from 0."""
        ...


_ASKED = {
    "what-how": "Write up to four questions that begin with What, Why or How, each with an answer in as few words as "
    "possible and three wrong answers that fit the question and contradict the feedback. "
    'Keys: "question", "answer", "false candidates".',
    "yes-no": "Write as many questions whose answer is Yes as ones whose answer is No. You may ask about defects that "
    'are not mentioned; their answer is No. Keys: "question", "answer".',
    "conversation": "Write a conversation of two to four turns about one of: what caused this appearance, how to take "
    "a better photo, tools that would improve it, who would like it, or anything else that the feedback supports. "
    'Keys: "query", "response".',
}


def instruction(kind: str, pathway: Pathway) -> str:
    """What a language model is asked; the words are ours, the content follows Q-Instruct (CVPR 2024, supplement)."""
    return (
        f"This is a person's feedback on the low-level appearance of an image:\n{pathway.text}\n\n{_ASKED[kind]} "
        "Use nothing that is not in the feedback. Return only a JSON list of objects."
    )


class RuleWriter:
    """Writes by rules from the vocabulary; needs no model, gives the same for the same text.

    Examples
    --------
    >>> pathway = Pathway("a", "r", "The cat is very blurry.", "Overall, the quality is poor.")
    >>> json.loads(RuleWriter().write("what-how", pathway, 0))[0]["answer"]
    'poor'
    """

    name = "rules"

    def write(self, kind: str, pathway: Pathway, attempt: int) -> str:
        """See :class:`Writer`."""
        rows = {"what-how": _what_how, "yes-no": _yes_no, "conversation": _conversation}[kind](pathway)
        return json.dumps(rows)


def _what_how(pathway: Pathway) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if pathway.level is not None:
        others = [word for i, word in enumerate(LEVELS) if abs(i + 1 - pathway.level) > 1]
        question = "How is the overall quality of this image?"
        rows.append({"question": question, "answer": LEVELS[pathway.level - 1], "false candidates": others[:3]})
    said = statements(pathway.description)
    signs = {one.aspect: {s.polarity for s in said if s.aspect == one.aspect} for one in said}
    for aspect, found in signs.items():
        if len(found) == 1:
            scale = ASPECTS[aspect].answer
            answer = scale[0] if found == {"good"} else scale[2]
            wrong = [word for word in scale if word != answer]
            rows.append(
                {"question": f"How is the {aspect} of this image?", "answer": answer, "false candidates": wrong}
            )
    blamed = [one for one in said if one.polarity == "bad"]
    free = [word for word in ADJECTIVE.values() if says(pathway.text, word) is not True]
    for one in blamed[:1]:
        row = {"question": "What low-level defect does this image have?", "answer": one.word}
        rows.append({**row, "false candidates": free[:3]})
    places = [place for place in PLACES if place in pathway.description.lower()]
    if len(places) == 1 and blamed:
        wrong = [place for place in PLACES if place not in pathway.text.lower()][:3]
        rows.append({"question": "What part of the image is degraded?", "answer": places[0], "false candidates": wrong})
    return rows


def _yes_no(pathway: Pathway) -> list[dict[str, Any]]:
    rows = []
    for aspect, word in ADJECTIVE.items():
        if aspect != "composition":
            told = says(pathway.text, word)
            rows.append({"question": f"Is this image {word}?", "answer": "Yes" if told else "No"})
        good = ASPECTS[aspect].good[0]
        if says(pathway.text, good) is not None and aspect not in ("contrast", "compression"):
            rows.append({"question": f"Is this image {good}?", "answer": "Yes" if says(pathway.text, good) else "No"})
    return rows


_CAUSES = {
    "sharpness": (
        "The lens was out of focus or the camera moved.",
        "Use a tripod or a shorter exposure.",
        "deblurring",
    ),
    "noise": ("The sensor had little light.", "Use more light or a lower sensitivity.", "denoising"),
    "exposure": ("The exposure did not fit the light.", "Correct the exposure before the photo is taken.", "curves"),
    "contrast": ("Stray light or processing made it flat.", "Shade the lens from stray light.", "a change of contrast"),
    "colour": ("White balance or processing changed it.", "Set the white balance for the light.", "colour balance"),
    "compression": ("The file was compressed too much.", "Save the photo with a higher quality.", "deblocking"),
    "integrity": ("Data were lost or moved on the way.", "Transmit or store the file again.", "inpainting"),
    "texture": ("Processing changed fine texture.", "Turn sharpening and denoising down.", "milder denoising"),
    "composition": ("The frame was not chosen well.", "Move or turn the camera.", "cropping"),
}
"""By aspect: what may have caused it, advice, and what would improve it."""


def _conversation(pathway: Pathway) -> list[dict[str, str]]:
    blamed = list(dict.fromkeys(one.aspect for one in statements(pathway.description) if one.polarity == "bad"))
    if not blamed:
        return []
    cause, advice, tool = _CAUSES[blamed[0]]
    return [
        {"query": f"What may have caused the bad {blamed[0]} of this image?", "response": cause},
        {"query": "How could a better photo be taken?", "response": advice},
        {"query": "What editing would improve it?", "response": f"To improve the {blamed[0]}, {tool} would help."},
    ]


class LocalWriter:
    """A causal language model of transformers on this machine.

    Parameters
    ----------
    model, tokenizer
        Loaded ones, such as of ``AutoModelForCausalLM`` and ``AutoTokenizer``.
    name
        For the record.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, tokens: int = 512) -> None:
        self.model, self.tokenizer, self.name, self.tokens = model, tokenizer, name, tokens

    def write(self, kind: str, pathway: Pathway, attempt: int) -> str:
        """See :class:`Writer`."""
        import torch

        text = instruction(kind, pathway)
        if getattr(self.tokenizer, "chat_template", None):
            message = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(text, return_tensors="pt")
        how: dict[str, Any] = {"do_sample": False} if attempt == 0 else {"do_sample": True, "temperature": 0.7}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.uint32(attempt)))
            made = self.model.generate(**inputs, max_new_tokens=self.tokens, **how)
        return self.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def local_writer(name: str) -> LocalWriter:
    """A writer of a language model on this machine: ``smollm2``, or a folder of transformers.

    Raises
    ------
    FewerError
        When transformers is missing or the model cannot be loaded.
    """
    model, tokenizer = open_language(name)
    return LocalWriter(model.eval(), tokenizer, name)
