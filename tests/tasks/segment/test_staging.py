"""Masks and scores that are written anew: the old ones stay until the new ones are there, and images always stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.staging import write_together
from fewer.tasks.segment import evaluate as evaluating
from fewer.tasks.segment import predict as predicting
from fewer.tasks.segment.files import read_picture
from tests.support.kill import killed_at
from tests.tasks.segment.simulated import write_folder

OLD, NEW = 7, 9


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose network marks every pixel with one class, without one."""
    monkeypatch.setattr(predicting, "load_model", lambda run: SimpleNamespace(model=nn.Identity()))
    monkeypatch.setattr(predicting, "predict_mask", lambda model, sample, *more: np.ones(sample.image.shape[1:], int))
    _mark(monkeypatch, OLD)
    folder = write_folder(tmp_path / "data", 3, (6, 5)) / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    return folder


def _mark(monkeypatch: pytest.MonkeyPatch, value: int) -> None:
    given = SimpleNamespace(values=(0, value), channels=1)
    monkeypatch.setattr(predicting, "preparation_of", lambda loaded: given)


def _marks(masks: Path) -> list[int]:
    return [int(read_picture(path, mask=True).array.max()) for path in sorted(masks.glob("*.png"))]


def _again(run: Path, masks: Path) -> None:
    predicting.predict(run, run.parent / "images", out=masks, overwrite=True)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_masks(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicting.predict(run, run.parent / "images", out=tmp_path / "old")
    _mark(monkeypatch, NEW)
    seen, code = set(), None
    for count in range(1, 80):
        masks = tmp_path / f"masks{count}"
        shutil.copytree(tmp_path / "old", masks)
        code = killed_at(count, masks, _again, run, masks)
        begun = (masks / ".next" / ".commit").exists()
        assert begun or len(set(_marks(masks))) == 1  # once it is begun, any predict carries it on
        predicting.predict(run, run.parent / "images", out=masks, resume=True)
        state = set(_marks(masks))
        assert state in ({OLD}, {NEW}) and not (masks / ".next").exists()
        assert not begun or state == {NEW}
        seen |= state
        if code == 0:
            break
    assert code == 0 and seen == {OLD, NEW}


def test_an_interruption_keeps_the_old_masks_and_is_gone_on_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = run.parent / "images", tmp_path / "masks"
    predicting.predict(run, images, out=masks)
    _mark(monkeypatch, NEW)
    answered = []

    def stops(model: nn.Module, sample: SimpleNamespace, *more: object) -> np.ndarray:
        answered.append(sample.name)
        if len(answered) == 3:
            raise KeyboardInterrupt
        return np.ones(sample.image.shape[1:], int)

    monkeypatch.setattr(predicting, "predict_mask", stops)
    with pytest.raises(KeyboardInterrupt):
        predicting.predict(run, images, out=masks, overwrite=True)
    assert _marks(masks) == [OLD] * 3
    predicting.predict(run, images, out=masks, resume=True)
    assert _marks(masks) == [NEW] * 3
    assert answered == ["case0", "case1", "case2", "case2"]  # two were kept


@pytest.mark.parametrize("name", ["images", "link", "data/../images"])
@pytest.mark.parametrize("which", [".", "case1.png"])
def test_masks_never_replace_the_images_that_they_are_of(run: Path, name: str, which: str) -> None:
    images = run.parent / "images"
    (run.parent / "link").symlink_to(images)
    (run.parent / "data").mkdir()
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    with pytest.raises(FewerError, match="choose another --out"):
        predicting.predict(run, images / which, out=run.parent / name, overwrite=True)
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_scores_that_belong_together_come_together(tmp_path: Path) -> None:
    def texts(value: str) -> dict[str, str]:
        return {f"evaluation{suffix}": value for suffix in (".csv", ".html", ".json")}

    def now(folder: Path) -> set[str]:
        return {path.read_text() for path in folder.glob("evaluation.*")}

    seen, code = set(), None
    for count in range(1, 60):
        folder = tmp_path / f"scores{count}"
        folder.mkdir()
        write_together(folder, texts("old"))
        code = killed_at(count, folder, write_together, folder, texts("new"))
        if not (folder / ".edit" / ".commit").exists():
            assert len(now(folder)) == 1
            seen |= now(folder)
        write_together(folder, texts("newer"))
        assert now(folder) == {"newer"} and len(list(folder.iterdir())) == 3
        if code == 0:
            break
    assert code == 0 and seen == {"old", "new"}


def test_an_evaluation_that_fails_leaves_the_old_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_folder(tmp_path / "data", 2), tmp_path / "scores"
    shutil.copytree(data / "masks", tmp_path / "guesses")
    evaluating.evaluate(tmp_path / "guesses", data, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "guesses" / "case0.png").unlink()
    write = evaluating.write_together

    def stops(folder: Path, texts: dict[str, str]) -> None:
        write(folder / "elsewhere", texts)

    monkeypatch.setattr(evaluating, "write_together", stops)
    with pytest.raises(FewerError):
        evaluating.evaluate(tmp_path / "guesses", data, out=out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(evaluating, "write_together", write)
    evaluating.evaluate(tmp_path / "guesses", data, out=out, overwrite=True)
    assert {path.name for path in out.iterdir()} == set(before)
    assert (out / "evaluation.json").read_bytes() != before["evaluation.json"]
