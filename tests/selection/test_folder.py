"""A queue that is chosen anew: the old one stays whole until the new one is complete, whenever the work ends."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.selection.folder import QueueFolder
from tests.support.kill import killed_at


def _write(queue, name):
    queue.write_names([name])
    (queue.path / "annotate").mkdir()
    (queue.path / "annotate" / name).touch()
    (queue.path / "plan.json").write_text(name)


def _old(folder):
    with QueueFolder.create(folder) as queue:
        _write(queue, "old.png")
    (folder / "notes.txt").write_text("mine")


def _anew(folder):
    with QueueFolder.create(folder, overwrite=True) as queue:
        _write(queue, "new.png")


def _state(folder):
    """Which queue each part of the folder is of."""
    queue = QueueFolder(folder)
    return (*queue.read_names(), (folder / "plan.json").read_text(), *[p.name for p in (folder / "annotate").iterdir()])


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_queue(tmp_path):
    seen = set()
    for count in range(1, 80):
        folder = tmp_path / f"queue{count}"
        _old(folder)
        code = killed_at(count, folder, _anew, folder)
        begun = (folder / ".next" / ".commit").exists()
        if not begun:
            assert len(set(_state(folder))) == 1
        with pytest.raises(FewerError, match="already holds a queue"):  # which finishes an exchange that was begun
            QueueFolder.create(folder)
        state = _state(folder)
        assert state in (("old.png",) * 3, ("new.png",) * 3)
        assert not begun or state[0] == "new.png"
        assert (folder / "notes.txt").read_text() == "mine"
        _anew(folder)
        assert set(_state(folder)) == {"new.png"} and not (folder / ".next").exists()
        seen.add(state)
        if code == 0:
            break
    assert code == 0 and len(seen) == 2


@pytest.mark.parametrize("how", [{"resume": True}, {"resume": True, "overwrite": True}])
def test_an_interrupted_choice_anew_is_gone_on_with(tmp_path, how):
    folder = tmp_path / "queue"
    _old(folder)
    with pytest.raises(KeyboardInterrupt), QueueFolder.create(folder, overwrite=True) as queue:
        queue.write_names(["new.png"])
        raise KeyboardInterrupt
    assert set(_state(folder)) == {"old.png"}
    with QueueFolder.create(folder, **how) as queue:
        assert queue.read_names() == ["new.png"]
        _write(queue, "new.png")
    assert set(_state(folder)) == {"new.png"}


def test_a_mistake_leaves_the_old_queue_alone(tmp_path):
    folder = tmp_path / "queue"
    _old(folder)
    with pytest.raises(FewerError, match="no such pool"), QueueFolder.create(folder, overwrite=True) as queue:
        queue.write_names(["new.png"])
        raise FewerError("no such pool")
    assert set(_state(folder)) == {"old.png"} and not (folder / ".next").exists()
