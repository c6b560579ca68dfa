"""Vision-language models of transformers, tiny and from nothing: the same code that a GPU runs on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.questions import Question, write_questions
from fewer.tasks.quality.records import Record, write_records
from fewer.tasks.quality.settings import TuneSettings
from tests.support.transformers import need_transformers

transformers = need_transformers()
tokenizers = pytest.importorskip("tokenizers", reason="the tiny tokenizer is made with tokenizers")

TEXTS = "dark bright How is the light overall quality of this image ? good poor excellent fair bad . : USER ASSISTANT"
TEMPLATE = (
    "{% for m in messages %}{{ '<u>' if m['role'] == 'user' else '<a>' }}{% for c in m['content'] %}"
    "{{ '<image>' if c['type'] == 'image' else ' ' + c['text'] }}{% endfor %}"
    "{{ '' if m['role'] == 'user' else '</s>' }}{% endfor %}{{ '<a>' if add_generation_prompt else '' }}"
)


def tokenizer_of(marks: list[str], image: str = "<image>"):
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    special = ["<pad>", "</s>", "<u>", "<a>", *marks]
    vocabulary = {word: i for i, word in enumerate([*special, "<unk>", *dict.fromkeys(TEXTS.split())])}
    made = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": image},
        additional_special_tokens=["<u>", "<a>", *marks],
    )


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def llava(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A LLaVA of a few thousand weights, saved as transformers saves one."""
    torch.manual_seed(0)
    words = tokenizer_of(["<image>"])
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    side = {"height": 32, "width": 32}
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side)
    processor = transformers.LlavaProcessor(
        pictures, words, patch_size=16, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    records, questions = [], []
    for i in range(6):
        value = 40 if i % 2 else 210
        Image.fromarray(np.full((40, 36, 3), value, np.uint8)).save(tmp_path / f"{i}.png")
        word, level = ("dark", "poor") if i % 2 else ("bright", "good")
        records.append(Record(f"q{i}", (("<image>\nHow is the light ?", word),), f"{i}.png"))
        records.append(Record(f"l{i}", (("<image>\nHow is the overall quality of this image ?", level),), f"{i}.png"))
        questions.append(Question(f"{i}.png", "How is the light ?", ("bright", "dark"), i % 2, "how"))
    write_records(tmp_path / "talk.json", records)
    write_questions(tmp_path / "asked.json", questions)
    (tmp_path / "mos.csv").write_text("".join(f"{i}.png,{1 if i % 2 else 5}\n" for i in range(6)))
    return tmp_path


def settings(folder: Path, **more) -> TuneSettings:
    return TuneSettings(language=str(folder), **{"steps": 24, "batch": 4, "learning_rate": 0.03, "lora": 0, **more})


def test_a_vision_language_model_is_tuned_asked_and_read_back(talk: Path, tmp_path: Path) -> None:
    from fewer.tasks.quality.tuning import load_tuned, plan_tuning, tune

    chosen = settings(llava(tmp_path / "llava"), language_rate=1.0)
    assert "of memory (modelled" in plan_tuning(talk / "talk.json", chosen)[2]
    done = tune(talk / "talk.json", out=talk / "run", settings=chosen)
    assert done.fit.history[-1]["loss"] < 0.8 * float(np.log(64))
    frozen = [n for n, p in done.model.named_parameters() if not p.requires_grad]
    assert frozen and all("vision" in name for name in frozen)
    scored = evaluate(talk / "run", talk / "asked.json").perception
    again = load_tuned(talk / "run")
    pixels = again.pictures(talk).pixels("0.png")
    assert torch.allclose(
        again.model.first_logits(pixels, "How is the light ?"), done.model.first_logits(pixels, "How is the light ?")
    )
    assert scored.way == "likelihood" and isinstance(again.model.write(pixels, "How is the light ?", 3), str)
    assert len(evaluate(talk / "run", talk / "mos.csv").numbers) == 2
    told = fewer.predict(talk / "run", talk, out=talk / "told", task="quality", question="How is the light ?")
    assert len(told.rows) == 6


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_the_loss_is_at_the_answers_alone(tmp_path: Path, template: str | None) -> None:
    from fewer.tasks.quality.seeing import is_seeing, open_seeing

    folder = llava(tmp_path / "llava", template)
    assert is_seeing(folder)
    model = open_seeing(transformers, str(folder), 0)
    pixels = np.zeros((20, 50, 3), np.uint8)
    turns = [("How is the light ?", "dark"), ("How is the quality ?", "poor .")]
    inputs, labels = model.laid_out(pixels, turns)
    told = labels[labels != -100]
    end = model.processor.tokenizer.eos_token_id
    encode = lambda text: model.processor.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    assert told.tolist() == [*encode("dark"), end, *encode("poor ."), end]
    assert int((inputs["input_ids"] == model.language.config.image_token_id).sum()) == 4
    sums, lengths = model.likelihoods(pixels, "How is the light ?", ["dark", "poor ."])
    loss, *_ = model.loss([(pixels, [("How is the light ?", "dark")])])
    assert lengths == [2, 3] and float(loss.detach()) == pytest.approx(-sums[0] / 2, abs=1e-5)


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_several_images_and_the_longest_conversation(tmp_path: Path, template: str | None) -> None:
    from fewer.tasks.quality.seeing import open_seeing

    model = open_seeing(transformers, str(llava(tmp_path / "llava", template)), 0)
    images = [np.zeros((20, 50, 3), np.uint8), np.full((30, 30, 3), 255, np.uint8)]
    turns = [("How is the light ?", "dark"), ("How is the quality ?", "poor .")]
    inputs, labels = model.laid_out(images, turns)
    token = model.language.config.image_token_id
    assert int((inputs["input_ids"] == token).sum()) == 8 and len(inputs["pixel_values"]) == 2
    words = len(labels) - 8 + 2  # each image is one word of the text
    for longest in (words, words - 1, words - 3):
        cut, kept = model.laid_out(images, turns, longest)
        assert (
            len(kept) == len(labels) - (words - longest) == cut["input_ids"].shape[1] == cut["attention_mask"].shape[1]
        )
        assert torch.equal(kept, labels[: len(kept)]) and len(cut["pixel_values"]) == 2
        assert int((cut["input_ids"] == token).sum()) == 8 and torch.isfinite(model.loss([(images, turns)], longest)[0])
    assert model.loss([(images, turns)], words - 3)[1] < model.loss([(images, turns)], 100)[1]
    none = model.loss([(None, turns), (images, turns)], 1)  # no answer is left, which is counted and teaches nothing
    assert float(none[0].detach()) == 0 and none[2] == 2


def test_adapters_of_a_vision_language_model_leave_its_eyes_alone(talk: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    from safetensors.torch import load_file

    from fewer.tasks.quality.tuning import load_tuned, tune

    chosen = settings(llava(tmp_path / "llava"), lora=2, steps=2)
    tune(talk / "talk.json", out=talk / "run", settings=chosen)
    stored = load_file(talk / "run" / "model.safetensors")
    assert stored and all("lora" in name and "vision" not in name for name in stored)
    assert load_tuned(talk / "run").model.image_tokens > 4


def test_smolvlm_is_laid_out_by_its_own_processor(tmp_path: Path) -> None:
    from fewer.tasks.quality.seeing import open_seeing

    torch.manual_seed(0)
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    words = tokenizer_of(marks)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Idefics3Config(
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(tmp_path)
    try:
        pictures = transformers.Idefics3ImageProcessor(
            size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
        )
        processor = transformers.Idefics3Processor(pictures, words, image_seq_len=4, chat_template=TEMPLATE)
    except ImportError as error:
        pytest.skip(f"the processor of Idefics3 needs {error}")
    processor.save_pretrained(tmp_path)
    model = open_seeing(transformers, str(tmp_path), 0)
    inputs, labels = model.laid_out(np.zeros((20, 50, 3), np.uint8), [("How is the light ?", "dark")])
    assert int((inputs["input_ids"] == words.convert_tokens_to_ids("<image>")).sum()) == 4
    assert int((labels != -100).sum()) == 2 and model(inputs).shape[1] == len(labels)


def test_qwen_is_laid_out_by_its_own_processor(tmp_path: Path) -> None:
    from fewer.tasks.quality.seeing import open_seeing

    torch.manual_seed(0)
    words = tokenizer_of(
        ["<image>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"], "<|image_pad|>"
    )
    mark = words.convert_tokens_to_ids
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
        image_token_id=mark("<|image_pad|>"),
        video_token_id=mark("<|video_pad|>"),
        vision_start_token_id=mark("<|vision_start|>"),
        vision_end_token_id=mark("<|vision_end|>"),
    )
    try:
        pictures = transformers.Qwen2VLImageProcessor(patch_size=4, min_pixels=64, max_pixels=1024)
        videos = transformers.Qwen2VLVideoProcessor(patch_size=4)
        template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
        processor = transformers.Qwen2VLProcessor(pictures, words, videos, chat_template=template)
    except ImportError as error:
        pytest.skip(f"the processor of Qwen2-VL needs {error}")
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = open_seeing(transformers, str(tmp_path), 0)
    inputs, labels = model.laid_out(np.zeros((24, 40, 3), np.uint8), [("How is the light ?", "dark")])
    assert int((inputs["input_ids"] == mark("<|image_pad|>")).sum()) == 3 * 5
    assert int((labels != -100).sum()) == 2 and model(inputs).shape[1] == len(labels)
    assert isinstance(model.write(np.zeros((24, 40, 3), np.uint8), "How is the light ?", 2), str)


def test_a_folder_without_a_processor_is_told(talk: Path, tmp_path: Path) -> None:
    from fewer.tasks.quality.tuning import tune

    folder = llava(tmp_path / "llava")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(FewerError, match=r"no processor|cannot be loaded"):
        tune(talk / "talk.json", settings=settings(folder))
    with pytest.raises(FewerError, match="leave --encoder out"):
        tune(talk / "talk.json", settings=settings(llava(tmp_path / "again"), encoder=str(folder)))


@pytest.mark.parametrize("kind", ["siglip", "clip", "convnext"])
def test_vision_encoders_of_other_layouts(tmp_path: Path, kind: str) -> None:
    from fewer.tasks.quality.building import _encoder

    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = {
        "siglip": lambda: transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(**small, image_size=48, patch_size=16)
        ),
        "clip": lambda: transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**small, image_size=48, patch_size=16)
        ),
        "convnext": lambda: transformers.ConvNextModel(
            transformers.ConvNextConfig(hidden_sizes=[4, 8, 8, 12], depths=[1, 1, 1, 1])
        ),
    }[kind]()
    made.save_pretrained(tmp_path)
    encoder = _encoder(transformers, TuneSettings(encoder=str(tmp_path), grid=2)).eval()
    for side in (48, 64):  # of the model's own size, and of another
        tokens = encoder(torch.rand(2, 3, side, side))
        assert tokens.shape == (2, 5, 12 if kind == "convnext" else 8) and bool(torch.isfinite(tokens).all())
    if kind == "siglip":  # without CLS all tokens are patches, so a change in the first corner is seen there
        images = torch.rand(1, 3, 48, 48)
        assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
        hidden = encoder._hidden((images - 0.5) / 0.5)
        assert torch.allclose(encoder._tokens(images)[:, 0], hidden.mean(1), atol=1e-6)
