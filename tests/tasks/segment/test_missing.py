"""What has no prediction counts as missed and is named; two files never stand for one case."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import image_pool, open_data
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.files import read_picture, write_picture
from fewer.tasks.segment.predict import _check_names
from fewer.tasks.segment.scoring import evaluate_folder
from tests.tasks.segment.simulated import write_folder


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(0, 4), min_size=1, max_size=5))
def test_a_case_without_a_prediction_is_missed(tmp_path_factory, given_cases: set[int]) -> None:
    root = tmp_path_factory.mktemp("missing")
    data = open_data(write_folder(root / "data", 5))
    guesses = root / "guesses"
    for index in given_cases:
        case = data.cases[index]
        write_picture(guesses / f"{case.name}.png", read_picture(case.mask, mask=True).array[0])
    found = evaluate_folder(guesses, data, distances=False)
    absent = [case.name for index, case in enumerate(data.cases) if index not in given_cases]
    assert list(found.missing) == absent and found.cases == 5
    with_class = [case for case in data.cases if read_picture(case.mask, mask=True).array.any()]
    hits = [case for case in with_class if case.name not in absent]
    assert found.overall.dice_all == pytest.approx(len(hits) / len(with_class))
    assert Evaluation.from_dict(found.to_dict()) == found
    assert all(name in str(found) for name in absent)


def test_two_masks_of_one_case_and_lossy_masks_are_refused(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path / "data", 2))
    name = data.cases[0].name
    for ending in (".png", ".tif"):
        write_picture(tmp_path / f"two/{name}{ending}", np.zeros((48, 40), np.uint8))
    with pytest.raises(FewerError, match="two masks of one case"):
        evaluate_folder(tmp_path / "two", data)
    write_picture(tmp_path / f"lossy/{name}.png", np.zeros((48, 40), np.uint8))
    (tmp_path / f"lossy/{name}.jpg").write_bytes(b"x")
    with pytest.raises(FewerError, match="loses detail"):
        evaluate_folder(tmp_path / "lossy", data)


def test_two_images_of_one_name_are_refused() -> None:
    with pytest.raises(FewerError, match="same name"):
        _check_names(image_pool(["a.png", "b.png", "a.jpg"]).unlabelled)
