"""The list of finished tasks survives interruptions and forgets other work."""

import json

import pytest

from fewer.core.errors import FewerError
from fewer.core.ledger import Ledger


def filled(path, tasks=("a", "b", "c"), key="k"):
    ledger = Ledger(path, key)
    for i, task in enumerate(tasks):
        ledger.add(task, {"distortion": [0.1 * i, 1e-17, i]})
    return ledger


def test_results_come_back_exactly(tmp_path):
    written = filled(tmp_path / "l")
    assert Ledger(tmp_path / "l", "k").results == written.results
    assert "a" in written and "z" not in written


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_that_was_cut_off_anywhere_costs_only_itself(tmp_path, cut):
    path = tmp_path / "l"
    filled(path)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Ledger(path, "k")
    # without its newline alone the last line is still whole
    assert list(again.results) == (["a", "b", "c"] if cut == 1 else ["a", "b"])
    again.add("d", 1)
    assert list(Ledger(path, "k").results) == [*again.results]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_garbage_is_skipped(tmp_path):
    path = tmp_path / "l"
    filled(path)
    path.write_bytes(b"\xff\xfe\x00garbage\n[1, 2]\n{}\n\n" + path.read_bytes())
    assert list(Ledger(path, "k").results) == ["a", "b", "c"]
    assert path.read_text().count("\n") == 3


def test_other_work_is_dropped_from_the_file(tmp_path):
    path = tmp_path / "l"
    filled(path)
    other = Ledger(path, "other")
    assert not other.results and path.read_text() == ""
    other.add("x", 1)
    assert not Ledger(path, "k").results


def test_memory_only_and_clear(tmp_path):
    assert list(filled(None).results) == ["a", "b", "c"]
    ledger = filled(tmp_path / "l")
    ledger.clear()
    assert not (tmp_path / "l").exists() and "a" in ledger
    ledger.clear()


def test_a_folder_in_its_place_is_told_in_one_sentence(tmp_path):
    (tmp_path / "l").mkdir()
    with pytest.raises(FewerError, match="l"):
        Ledger(tmp_path / "l", "k")
    ledger = Ledger(tmp_path / "missing" / "l", "k")
    with pytest.raises(FewerError, match="missing"):
        ledger.add("a", 1)
