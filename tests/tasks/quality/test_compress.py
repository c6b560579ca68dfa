"""A tuned run goes through `fewer compress` as it is, and what comes out is asked as before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.models.spec import load_model
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.records import Record
from fewer.tasks.quality.settings import TuneSettings
from tests.support.transformers import need_transformers
from tests.tasks.quality.test_tuning import SMALL, talk  # noqa: F401

transformers = need_transformers()

QUICK = Settings(
    calibration=4, sensing=2, heldout=3, additivity=0, sparsities=(0.5,), probes=1, baselines=(), workers=1,
    allocator="uniform", estimator="taylor", compensation="none",
)  # fmt: skip


def test_a_tuned_run_is_compressed_judged_and_asked_again(talk: Path) -> None:  # noqa: F811
    from fewer.tasks.quality.compressing import open_tuned
    from fewer.tasks.quality.scorer import LevelScorer, views_of
    from fewer.tasks.quality.tuning import load_tuned, tune

    tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**SMALL))
    (talk / "broken.png").write_bytes(b"no image")
    done = fewer.compress(
        str(talk / "run"), talk, "weights=80%", out=talk / "small", quality=talk / "asked.json", settings=QUICK
    )
    rows = [row for row in done.report.verdict.quality if row.labelled]
    assert (
        rows[0].name == "accuracy"
        and rows[0].dense == 1.0
        and rows[0].value == evaluate(talk / "small", talk / "asked.json").perception.accuracy
    )
    again, dense = open_tuned(talk / "small"), load_tuned(talk / "run")
    views = views_of(dense.pictures(talk), ["0.png", "1.png"])
    small = LevelScorer(again)(views)
    kept, made = LevelScorer(again).state_dict(), done.model.state_dict()
    assert kept.keys() == made.keys() and all(torch.equal(kept[name], made[name]) for name in kept)
    # the same weights at another place in memory: kernels add up in another order
    assert torch.allclose(small, done.model(views), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(small, LevelScorer(dense)(views), rtol=1e-3, atol=1e-3)
    assert len(evaluate(talk / "small", talk / "mos.csv").numbers) == 2
    told = fewer.predict(talk / "small", talk, out=talk / "told", question="How is the light?")
    assert len(told.rows) == 16 and told.skipped[0][0] == "broken.png"
    assert load_model(str(talk / "small")).input_size == (1, 3, 32, 32)
    with pytest.raises(FewerError, match="fewer compress RUN"):
        fewer.load(talk / "run")


def test_adapters_and_an_encoder_of_transformers_are_part_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    from fewer.tasks.quality.asking import level_scores
    from fewer.tasks.quality.compressing import open_tuned
    from fewer.tasks.quality.tuning import load_tuned, tune
    from tests.tasks.quality.test_seeing import TEXT, tokenizer_of

    torch.manual_seed(0)
    language = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    language.save_pretrained(tmp_path / "lm")
    tokenizer_of(["excellent", "fair", "bad"]).save_pretrained(tmp_path / "lm")
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
    )
    transformers.CLIPVisionModel(vision).save_pretrained(tmp_path / "eye")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        # statistics of a flat image are rounding errors, which differ between batches
        noise = np.random.default_rng(i).integers(0, 40, (32, 32, 3))
        Image.fromarray((15 * i + noise).astype(np.uint8)).save(photos / f"{i}.png")
    parts = {"language": str(tmp_path / "lm"), "encoder": str(tmp_path / "eye"), "lora": 2, "images": str(photos)}
    records = [Record(str(i), (("<image>\nHow is the light ?", "dark"),), f"{i}.png") for i in range(8)]
    tune(records, out=tmp_path / "run", settings=TuneSettings(**{**SMALL, "steps": 2, **parts}))
    dense, loaded = load_tuned(tmp_path / "run"), load_model(str(tmp_path / "run"))
    names = [f"{i}.png" for i in range(12)]
    units = {name for name, m in loaded.model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert not any("lora" in name for name in units) and any("encoders.1" in name for name in units)
    before = level_scores(dense, dense.pictures(photos), names)
    scored = loaded.model(torch.from_numpy(np.stack([dense.pictures(photos)(name) for name in names])).float())
    weights = scored.softmax(1).detach().numpy() @ np.arange(5.0, 0, -1)
    assert np.allclose(weights, before, atol=1e-4)  # adapters are merged, and nothing else changes
    fewer.compress(str(tmp_path / "run"), photos, "weights=90%", out=tmp_path / "small", settings=QUICK)
    small = open_tuned(tmp_path / "small")
    after = level_scores(small, small.pictures(photos), names)
    assert np.isfinite(after).all() and not np.array_equal(after, before)
    recipe = json.loads((tmp_path / "small" / "recipe.json").read_text())
    assert str(tmp_path) not in json.dumps(recipe["source"])  # a recipe names no place
    cut = {unit["name"] for unit in recipe["units"] if unit["sparsity"] > 0}
    assert cut


def test_what_cannot_be_compressed_or_judged_is_told(talk: Path) -> None:  # noqa: F811
    from fewer.tasks import open_task
    from fewer.tasks.quality.tuning import tune

    tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 2}))
    loaded, task = load_model(str(talk / "run")), open_task("quality")
    (talk / "hidden.json").write_text(json.dumps([{"img_path": "0.png", "question": "Q?", "candidates": ["a", "b"]}]))
    with pytest.raises(FewerError, match="has 0 entries that can judge"):
        task.quality(loaded, talk / "hidden.json")
    (talk / "empty").mkdir()
    with pytest.raises(FewerError):
        task.images(loaded, talk / "empty", 4, part="heldout", seed=0)
    for i in range(3):
        (talk / "empty" / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(FewerError, match="no readable image"):
        task.images(loaded, talk / "empty", 4, part="heldout", seed=0)
    held = task.images(loaded, talk, 99, part="heldout", seed=0)
    rest = task.images(loaded, talk, 99, part="calibration", seed=0)
    assert not set(held.files) & set(rest.files) and len(held) + len(rest) == 16
    with pytest.raises(FewerError, match="no network 'x'"):
        task.network("x", {})
    with pytest.raises(FewerError, match="how it is built"):
        task.network("scorer", {"asked": 3})
