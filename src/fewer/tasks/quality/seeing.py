"""A vision-language model of transformers, such as LLaVA, Qwen-VL or SmolVLM, asked and tuned by its own processor.

Images go through the processor of the model, one conversation at a time: what a processor makes of an image differs
from model to model, in names and in shapes, and only the model itself knows how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.core.errors import FewerError
from fewer.core.reading import read_json
from fewer.tasks.quality.model import ANSWER_POWER, IGNORED, answer_weight

__all__ = ["SeeingModel", "is_seeing", "open_seeing"]

Turns = Sequence[tuple[str, str]]
Seen = np.ndarray | Sequence[np.ndarray] | None
"""Pixels uint8 [H, W, 3] of an image, those of several, or None for text alone."""
_EYES = ("vision", "visual", "image_encoder")  # in the names of what sees
_BLANK = 336  # pixels of the image whose tokens are counted


def is_seeing(folder: str | Path) -> bool:
    """Whether a folder of transformers holds a model that sees images by itself.

    Examples
    --------
    >>> is_seeing("no-such-folder")
    False
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        return False
    config = read_json(file, 2**24)
    return isinstance(config, dict) and any(key in config for key in ("vision_config", "visual", "vision_tower"))


def open_seeing(transformers: Any, folder: str, lora: int) -> SeeingModel:
    """Load a model with its processor; the part that sees stays as it is, the rest learns.

    Parameters
    ----------
    transformers
        The package.
    folder
        With weights, configuration and processor.
    lora
        Rank of adapters in the linear layers that do not see; 0 trains these layers themselves.

    Raises
    ------
    FewerError
        When it cannot be loaded, has no processor, or peft is missing.
    """
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": folder,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(**where).float()
        processor = transformers.AutoProcessor.from_pretrained(**where)
    except Exception as error:  # whatever a library makes of a damaged folder
        raise FewerError(f"the vision-language model {folder!r} cannot be loaded ({str(error)[:150]})") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise FewerError(f"{folder!r} has no processor of images and texts; copy all files of the model into it")
    blind = {name: m for name, m in model.named_modules() if not any(eye in name for eye in _EYES)}
    if lora:
        try:
            import peft
        except ImportError:
            raise FewerError('LoRA needs peft; run: pip install "fewer[tune]", or give --lora 0') from None
        head = model.get_output_embeddings()
        names = [name for name, m in blind.items() if isinstance(m, nn.Linear) and m is not head]
        model = peft.get_peft_model(model, peft.LoraConfig(r=lora, lora_alpha=2 * lora, target_modules=names))
    else:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(eye in name for eye in _EYES))
    return SeeingModel(model, processor)


class SeeingModel(nn.Module):
    """A vision-language model that takes images as pixels and conversations as texts.

    Parameters
    ----------
    language
        Called with what its processor makes; gives ``logits``.
    processor
        Of transformers.
    """

    def __init__(self, language: nn.Module, processor: Any) -> None:
        super().__init__()
        self.language, self.processor = language, processor

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.language.parameters()).device

    @property
    def image_tokens(self) -> int:
        """Tokens of an image of 336 pixels with the frame of a question around it."""
        blank = np.zeros((_BLANK, _BLANK, 3), np.uint8)
        return int(self._inputs([blank], self._text([("", "")], 1, open_end=True))["input_ids"].shape[1])

    def forward(self, inputs: Any) -> Tensor:
        """Logits [1, tokens, words]."""
        return self.language(**inputs).logits

    def loss(
        self, talks: Sequence[tuple[Seen, Turns]], longest: int | None = None, power: float = ANSWER_POWER
    ) -> tuple[Tensor, int, int]:
        """Mean cross entropy at the answers of some conversations, their tokens, and how many have no answer left.

        Parameters
        ----------
        talks
            Pixels, and questions with answers.
        longest
            Words of a conversation that are kept; those that stand for images do not count.
        power
            See :meth:`fewer.tasks.quality.model.QualityModel.loss`.
        """
        total, count, tokens, silent = torch.zeros((), device=self.device), 0.0, 0, 0
        for pixels, turns in talks:
            inputs, labels = self.laid_out(pixels, turns, longest)
            logits = self(inputs)
            told = int((labels[1:] != IGNORED).sum())
            weight = float(answer_weight(torch.tensor(told), power))
            summed = F.cross_entropy(logits[0, :-1].float(), labels[1:], ignore_index=IGNORED, reduction="sum")
            total = total + weight * summed
            count, tokens, silent = count + weight * told, tokens + len(labels), silent + (told == 0)
        return total / max(1, count), tokens, silent

    def laid_out(self, pixels: Seen, turns: Turns, longest: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """What the model is called with, and labels [tokens] that are ignored but at the answers.

        Where an answer begins and ends is found by laying out the conversation up to there. A conversation of more
        than ``longest`` words is cut behind them, though never within the first question.

        Raises
        ------
        FewerError
            When the processor lays out the beginning of a conversation in another way than the whole.
        """
        images = _several(pixels)
        whole = self._text(turns, len(images))
        inputs = self._inputs(images, whole)
        ids = inputs["input_ids"][0]
        labels = torch.full_like(ids, IGNORED)
        first = 0  # where the first answer begins
        for turn in range(len(turns)):
            ends = []
            for open_end in (True, False):
                text = self._text(turns[: turn + 1], len(images), open_end=open_end)
                part = self._inputs(images, text)["input_ids"][0]
                if len(part) > len(ids) or not torch.equal(ids[: len(part)], part):
                    if open_end:
                        raise FewerError(
                            "the model's chat template does not keep the beginning of a conversation as it is, so that "
                            "answers cannot be told from questions"
                        )
                    part = ids  # something is written behind the last turn only
                ends.append(len(part))
            labels[ends[0] : ends[1]] = ids[ends[0] : ends[1]]
            first = ends[0] if turn == 0 else first
        if longest is None:
            return inputs, labels
        # the processor writes more tokens than the text has words: those of the images, which stay whole
        plain = len(self.processor.tokenizer(whole, add_special_tokens=self._adds_marks)["input_ids"])
        most = max(longest + max(0, len(ids) - plain), first)
        shape = inputs["input_ids"].shape
        cut = {name: value[:, :most] if value.shape == shape else value for name, value in inputs.items()}
        return cut, labels[:most]

    @torch.no_grad()
    def likelihoods(self, pixels: Seen, question: str, answers: Sequence[str]) -> tuple[list[float], list[int]]:
        """Log-likelihood of each answer, summed over its tokens, and how many there are."""
        sums, lengths = [], []
        for answer in answers:
            inputs, labels = self.laid_out(pixels, [(question, answer)])
            logs, told = self(inputs)[0, :-1].float().log_softmax(1), labels[1:]
            of = told != IGNORED
            sums.append(float(logs[of].gather(1, told[of][:, None]).sum()))
            lengths.append(int(of.sum()))
        return sums, lengths

    @torch.no_grad()
    def write(self, pixels: Seen, question: str, most: int) -> str:
        """What it answers, the most likely word each time."""
        images = _several(pixels)
        inputs = self._inputs(images, self._text([(question, "")], len(images), open_end=True))
        made = self.language.generate(**inputs, max_new_tokens=most, do_sample=False)  # type: ignore[operator]
        return self.processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    @torch.no_grad()
    def first_logits(self, pixels: Seen, question: str, opening: str = "") -> Tensor:
        """Logits [words] of the first token of the answer, or of that behind its opening."""
        images = _several(pixels)
        text = self._text([(question, opening)], len(images), open_end=not opening)
        if opening:
            text = text[: text.rindex(opening) + len(opening)]
        inputs = self._inputs(images, text)
        return self(inputs)[0, -1].float().cpu()

    def _text(self, turns: Turns, images: int, open_end: bool = False) -> str:
        """A conversation about so many images as the model wants it; with an open end, without the last answer."""
        messages = []
        for place, (question, answer) in enumerate(turns):
            seen = [{"type": "image"}] * images if not place else []
            messages.append({"role": "user", "content": [*seen, {"type": "text", "text": question}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        if open_end:
            messages.pop()
        if getattr(self.processor, "chat_template", None):
            return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_end)
        # models without a template of their own: the frame of LLaVA-1.5
        token, end = getattr(self.processor, "image_token", "<image>"), self.processor.tokenizer.eos_token or ""
        parts = []
        for place, (question, answer) in enumerate(turns):
            head = f"{token}\n" * images if not place else ""
            last = open_end and place == len(turns) - 1
            parts.append(f"USER: {head}{question} ASSISTANT:" + ("" if last else f" {answer}{end}"))
        return " ".join(parts)

    @property
    def _adds_marks(self) -> bool:
        """Whether the tokenizer writes the marks of the beginning; a template does it itself."""
        return not getattr(self.processor, "chat_template", None)

    def _inputs(self, images: Sequence[np.ndarray], text: str) -> dict[str, Tensor]:
        from PIL import Image

        more: dict[str, Any] = {"images": [[Image.fromarray(pixels) for pixels in images]]} if images else {}
        more["add_special_tokens"] = self._adds_marks
        made = self.processor(text=[text], return_tensors="pt", **more)
        found = {name: value.to(self.device) for name, value in made.items() if isinstance(value, Tensor)}
        kind = next(self.language.parameters()).dtype
        return {name: value.to(kind) if value.is_floating_point() else value for name, value in found.items()}


def _several(pixels: Seen) -> list[np.ndarray]:
    """Images as a list."""
    if pixels is None:
        return []
    return [pixels] if isinstance(pixels, np.ndarray) else list(pixels)
