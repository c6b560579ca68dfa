"""Conversations in the forms that other tools write, turned into that of LLaVA-v1.5."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["as_llava"]

_PLACEHOLDER = "<image>"
_PLACEHOLDERS = re.compile(
    r"<\|image(?:_\d+)?\|>|<ImageHere>|<image_placeholder>|<\|vision_start\|><\|image_pad\|><\|vision_end\|>"
)
"""What stands for an image in texts for mPLUG-Owl2 and Phi-3, InternLM-XComposer, Janus, and Qwen2-VL."""
_NAMED = re.compile(r"<img>([^<>]+\.\w{2,5})</img>")
"""An image with its name in the text itself, as for Qwen-VL; tags around other words are HTML."""
_EMPTY = "<img></img>"
"""The same with its name beside the text; without any name it is HTML."""
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "model": "gpt", "system": "system"}


def as_llava(value: Mapping[str, Any]) -> dict[str, Any]:
    """A record in the form of LLaVA-v1.5.

    Known are ``messages`` with role and content (OpenAI, Hugging Face and ShareGPT's successors), contents that are a
    list of parts, the roles user, assistant and model, ``images`` with their names, a system turn in front, which
    is left out, ``query`` and ``response`` with a ``history`` (ms-swift), ``instruction``, ``input`` and ``output``
    (LLaMA-Factory), ``<img>NAME</img>`` in the text (Qwen-VL), and what else stands for an image in a text. What is not
    known stays as it is, for the reader to refuse.

    Examples
    --------
    >>> talk = [{"role": "user", "content": "<image> Is it sharp?"}, {"role": "assistant", "content": "No"}]
    >>> as_llava({"messages": talk, "images": ["a.png"]})["image"]
    'a.png'
    """
    told = dict(value)
    if "conversations" not in told and "messages" in told:
        told["conversations"] = told.pop("messages")
    names: list[str] = []
    if "conversations" not in told and (plain := _one_question(told)):
        told["conversations"] = plain
    talk = told.get("conversations")
    if isinstance(talk, list):
        turns = [_turn(part, names) for part in talk]
        if turns and isinstance(turns[0], Mapping) and turns[0].get("from") == "system":
            turns = turns[1:]
        told["conversations"] = turns
    for key in ("images", "image"):
        if isinstance(told.get(key), (list, tuple)) and len(told[key]) == 1:
            told[key] = told[key][0]
    if "image" not in told and "images" in told:
        told["image"] = told.pop("images")
    if "image" not in told and names:
        told["image"] = names[0] if len(names) == 1 else names
    if told.get("image") and isinstance(told.get("conversations"), list):
        told["conversations"] = [_with_placeholders(turn) for turn in told["conversations"]]
    return told


def _with_placeholders(turn: Any) -> Any:
    if isinstance(turn, Mapping) and turn.get("from") == "human" and isinstance(turn.get("value"), str):
        return {**turn, "value": turn["value"].replace(_EMPTY, _PLACEHOLDER)}
    return turn


def _one_question(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turns of a record that has its question and its answer by names of their own; none of any other."""
    for asked, answered in (("query", "response"), ("instruction", "output")):
        question, answer, more = value.get(asked), value.get(answered), value.get("input")
        if not isinstance(question, str) or not isinstance(answer, str):
            continue
        if isinstance(more, str) and more.strip():
            question = f"{question}\n{more}"
        before = value.get("history") or ()
        if not isinstance(before, (list, tuple)) or not all(
            isinstance(p, (list, tuple)) and len(p) == 2 for p in before
        ):
            continue
        return [
            {"from": who, "value": text}
            for pair in (*before, (question, answer))
            for who, text in zip(("human", "gpt"), pair, strict=True)
        ]
    return []


def _turn(part: Any, names: list[str]) -> Any:
    """One turn; names of images within its parts are added to ``names``."""
    if not isinstance(part, Mapping):
        return part
    who = part.get("from", part.get("role"))
    text = part.get("value", part.get("content"))
    if isinstance(text, list):
        pieces = []
        for one in text:
            if isinstance(one, Mapping) and one.get("type") in ("image", "image_url"):
                pieces.append(f"{_PLACEHOLDER}\n")
                name = one.get("image", one.get("path", one.get("url")))
                names += [name] if isinstance(name, str) else []
            elif isinstance(one, Mapping) and isinstance(one.get("text"), str):
                pieces.append(one["text"])
            else:
                return part
        text = "".join(pieces)
    if isinstance(text, str) and _ROLES.get(str(who).lower()) == "human":
        names += _NAMED.findall(text)
        text = _PLACEHOLDERS.sub(_PLACEHOLDER, _NAMED.sub(_PLACEHOLDER, text))
    return {"from": _ROLES.get(str(who).lower(), who), "value": text}
