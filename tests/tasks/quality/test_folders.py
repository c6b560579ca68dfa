"""Folders of transformers as people have them: encoders of all kinds, short language models, odd tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.quality.building import build
from fewer.tasks.quality.language import need_transformers
from fewer.tasks.quality.records import Record
from fewer.tasks.quality.settings import TuneSettings

pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")
transformers = need_transformers()

SMALL = {"quality_width": 4, "grid": 2, "input_size": 32, "crops": 0}
TALK = [Record("a", (("<image>\nIs it dark?", "Yes"),), "a.png")]


def encoder(folder: Path, kind: str) -> str:
    """A tiny random model of a kind, in a folder."""
    blocks = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    made = {
        "ViT": lambda: transformers.ViTModel(transformers.ViTConfig(**blocks, image_size=48, patch_size=8)),
        "ResNet": lambda: transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1])
        ),
        "MobileNetV2": lambda: transformers.MobileNetV2Model(transformers.MobileNetV2Config(depth_multiplier=0.1)),
        "Bert": lambda: transformers.BertModel(transformers.BertConfig(**blocks, vocab_size=9)),
    }[kind]()
    made.save_pretrained(folder / kind)
    return str(folder / kind)


@pytest.mark.parametrize(("kind", "width"), [("ViT", 8), ("ResNet", 6), ("MobileNetV2", None)])
def test_an_encoder_is_as_wide_as_what_it_gives(tmp_path: Path, kind: str, width: int | None) -> None:
    model, _ = build(TuneSettings(**SMALL, encoder=encoder(tmp_path, kind)), TALK)
    found = model.encoders[1]
    tokens = found(torch.rand(2, 3, 32, 32))
    assert tokens.shape == (2, 5, found.width) and width in (None, found.width)
    ids = torch.tensor([[2, 3]])
    assert model(torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), ids, torch.ones_like(ids)).isfinite().all()


def test_what_sees_nothing_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(FewerError, match="gives no tokens of images of 32 pixels"):
        build(TuneSettings(**SMALL, encoder=encoder(tmp_path, "Bert")), TALK)


def language(folder: Path, positions: int, eos: str = "<eos>") -> str:
    """A tiny random GPT-2 with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: i for i, word in enumerate(["[UNK]", "<eos>", *["is", "it", "dark", "yes", "no", ".", "?"]])}
    config = transformers.GPT2Config(vocab_size=len(vocab), n_embd=8, n_layer=1, n_head=2, n_positions=positions)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token=eos)
    saved.save_pretrained(folder)
    return str(folder)


def test_a_language_model_that_reads_less_than_a_conversation(tmp_path: Path) -> None:
    short = TuneSettings(**SMALL, language=language(tmp_path / "short", 64), lora=0)
    with pytest.raises(FewerError, match="reads 64 tokens at most, and an image takes 16 beside 200 words"):
        build(short, TALK)
    model, _ = build(short.model_copy(update={"longest": 40}), TALK)
    ids = torch.tensor([[2, 3, 4]])
    assert model(torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), ids, torch.ones_like(ids)).shape == (1, 3, 9)


def test_a_tokenizer_of_another_model_and_adapters_that_do_not_fit(tmp_path: Path, monkeypatch) -> None:
    odd = language(tmp_path / "odd", 512, eos="<the end>")  # a word that the model does not have
    with pytest.raises(FewerError, match=r"the end mark of the tokenizer .* its model has 9 words"):
        build(TuneSettings(**SMALL, language=odd), TALK)
    peft = pytest.importorskip("peft", reason="LoRA needs peft")

    def refuse(*_) -> None:
        raise ValueError("this architecture has no such layers")

    monkeypatch.setattr(peft, "get_peft_model", refuse)
    with pytest.raises(FewerError, match=r"no such layers\); train all weights with --lora 0"):
        build(TuneSettings(**SMALL, language=language(tmp_path / "whole", 512)), TALK)
