"""Put the parts of a model together: language model, words, encoders, adapters; and estimate the memory of a tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.reading import read_json
from fewer.models.spec import load_model
from fewer.models.vit import VisionTransformer
from fewer.tasks.quality.encoders import Backbone, ImageEncoder, QualityEncoder, StatisticsEncoder
from fewer.tasks.quality.language import need_transformers, open_language
from fewer.tasks.quality.model import QualityModel
from fewer.tasks.quality.records import PLACEHOLDER, Record
from fewer.tasks.quality.scene import LEAST_SIDE
from fewer.tasks.quality.seeing import SeeingModel, is_seeing, open_seeing
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.words import PlainWords, PretrainedWords, Words

__all__ = ["TINY", "assemble", "build", "memory_estimate"]

TINY: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
"""The shape of the language model that is trained from nothing."""


def build(
    settings: TuneSettings, records: Sequence[Record] = (), words: Sequence[str] | None = None
) -> tuple[QualityModel | SeeingModel, Words]:
    """Model and tokenizer; a folder of a vision-language model gives that model itself.

    Parameters
    ----------
    settings
        Of the tuning.
    records
        Whose words a tiny model knows.
    words
        Those of a tiny model that was trained before.

    Raises
    ------
    FewerError
        When a package or folder is missing.
    """
    transformers = need_transformers()
    if is_seeing(settings.language):
        if settings.encoder != "none":
            raise FewerError(f"{settings.language} sees images by itself; leave --encoder out")
        seeing = open_seeing(transformers, settings.language, settings.lora)
        return seeing, PretrainedWords(seeing.processor.tokenizer)
    language, tokens = _language(transformers, settings, records, words)
    if settings.lora and settings.language != "tiny":
        language = _adapted(language, settings.lora)
    model = assemble(settings, language, lambda: _encoder(transformers, settings))
    _check_length(model, settings, max((len(record.images) for record in records), default=0))
    if model.readings is not None:
        model.readings.settle(tokens, language.get_input_embeddings())
    return model, tokens


def _check_length(model: QualityModel, settings: TuneSettings, images: int) -> None:
    """Raise a :class:`FewerError` where a conversation may be longer than the language model can read."""
    config: Any = model.language.config
    most = getattr(config, "max_position_embeddings", None)
    needed = images * model.image_tokens + settings.longest
    if isinstance(most, int) and images and needed > most:
        each = f"{images} images take" if images > 1 else "an image takes"
        raise FewerError(
            f"{settings.language} reads {most} tokens at most, and {each} {images * model.image_tokens} beside "
            f"{settings.longest} words of a conversation; give a smaller --longest, --grid or --crops"
        )


def assemble(settings: TuneSettings, language: Any, encoder: Callable[[], ImageEncoder]) -> QualityModel:
    """A language model with the encoders of its settings in front.

    Parameters
    ----------
    encoder
        Makes the encoder of transformers, where the settings name one.
    """
    if settings.quality_encoder == "statistics" and settings.input_size < LEAST_SIDE:
        raise FewerError(
            f"statistics need views of {LEAST_SIDE} pixels; give --input-size {LEAST_SIDE} or more, or "
            "--quality-encoder convolutional"
        )
    read = settings.readings and settings.quality_encoder == "statistics"
    if settings.quality_encoder == "statistics":
        encoders: list[nn.Module] = [StatisticsEncoder(4 * settings.quality_width, settings.grid, judged=read)]
    else:
        encoders = [QualityEncoder(settings.quality_width, settings.grid)]
    if settings.encoder != "none":
        encoders.append(encoder())
    hidden = int(language.get_input_embeddings().weight.shape[1])
    return QualityModel(language, encoders, hidden, 1 + (settings.crops or 0), read)


def _language(transformers: Any, settings: TuneSettings, records: Sequence[Record], words: Any) -> tuple[Any, Words]:
    name = settings.language
    if name == "tiny":
        texts = [text.replace(PLACEHOLDER, "") for record in records for turn in record.turns for text in turn]
        tokens = PlainWords(words) if words is not None else PlainWords.of([*texts, "A B C D E F G H."])
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokens), **TINY)), tokens
    model, tokenizer = open_language(name, also="tiny, ")
    return model, PretrainedWords(tokenizer)


def _adapted(language: Any, rank: int) -> Any:
    try:
        import peft
    except ImportError:
        raise FewerError(
            'LoRA needs peft; run: pip install "fewer[tune]", or train all weights with --lora 0'
        ) from None
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    try:
        return peft.get_peft_model(language, config)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise FewerError(
            f"LoRA does not fit this language model ({reason}); train all weights with --lora 0"
        ) from error


def _encoder(transformers: Any, settings: TuneSettings) -> ImageEncoder:
    if settings.encoder.startswith("fewer/"):
        return _built_in(settings)
    if not Path(settings.encoder).is_dir():
        raise FewerError(
            f"no vision encoder {settings.encoder!r}: give none, fewer/dinov2-small or a folder of transformers"
        )
    try:
        model = transformers.AutoModel.from_pretrained(settings.encoder, local_files_only=True, trust_remote_code=False)
        model = getattr(model, "vision_model", model).eval().float()  # as pixels are, whatever it is stored in
    except Exception as error:
        raise FewerError(f"the encoder {settings.encoder!r} cannot be loaded ({str(error)[:150]})") from error
    encoder = ImageEncoder(model, 0, *_normalisation(Path(settings.encoder), model), settings.grid)
    side = settings.input_size
    try:
        with torch.no_grad():  # how wide its tokens are is told by every kind of model in another way
            encoder.width = int(encoder(torch.zeros(1, 3, side, side)).shape[2])
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise FewerError(f"{settings.encoder!r} gives no tokens of images of {side} pixels ({reason})") from error
    return encoder


def _built_in(settings: TuneSettings) -> ImageEncoder:
    """A network of the library that gives tokens."""
    loaded = load_model(settings.encoder)
    if not isinstance(loaded.model, VisionTransformer) or loaded.model.num_classes:
        raise FewerError(f"{settings.encoder} gives no tokens of an image; fewer/dinov2-small does")
    backbone = Backbone(loaded.model, settings.encoder.removeprefix("fewer/"))
    return ImageEncoder(backbone, backbone.width, loaded.mean, loaded.std, settings.grid)


def _normalisation(folder: Path, model: Any) -> tuple[Any, Any]:
    """Mean and deviation of the channels: what the folder's preprocessing says, else the usual ones of its kind."""
    file = folder / "preprocessor_config.json"
    if file.is_file():
        told = read_json(file, 2**20)
        found = [told.get(key) for key in ("image_mean", "image_std")] if isinstance(told, dict) else []
        if len(found) == 2 and all(_is_triple(values) for values in found):
            return found[0], found[1]
    kind = str(model.config.model_type)
    if "siglip" in kind:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if "clip" in kind:
        return (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _is_triple(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)


def memory_estimate(model: QualityModel | SeeingModel, settings: TuneSettings) -> dict[str, int]:
    """Bytes that a tuning takes, modelled: weights, gradients and two moments of what trains, and activations.

    Activations are counted as 34 numbers per token, layer and hidden unit (Korthikanti et al., 2022, without the part
    of attention), at the precision of the products, and the logits at 4 bytes.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    embedding: Any = model.language.get_input_embeddings()  # type: ignore[operator]
    words, hidden = embedding.weight.shape
    config: Any = model.language.config
    config = getattr(config, "text_config", None) or config
    layers = int(getattr(config, "num_hidden_layers", 12))
    tokens = settings.batch * (model.image_tokens + settings.longest)
    bytes_each = 2 if settings.precision in ("bf16", "fp16") else 4
    activations = 34 * tokens * hidden * layers * bytes_each // 2 + 2 * 4 * settings.batch * settings.longest * words
    parts = {"weights": weights, "gradients": trained, "moments": 2 * trained, "activations": int(activations)}
    return {**parts, "total": sum(parts.values())}
