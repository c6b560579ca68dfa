"""A round: what is known goes in, new images come out, and broken ones are passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewer.core.budget import Budget
from fewer.core.progress import SILENT
from fewer.data.images import list_images
from fewer.selection.embed import Embedded
from fewer.selection.labels import Returned
from fewer.selection.plan import Asked, QueuePlan, Round
from fewer.selection.rounds import Known, Wanted

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def known(pool: Path, **more) -> Known:
    names = [path.relative_to(pool).as_posix() for path in list_images(pool)]
    rng = np.random.default_rng(0)
    heaps = np.array([int(Path(name).stem) % 4 for name in names])
    vectors = (10 * np.eye(4, 5)[heaps] + rng.normal(0, 0.1, (len(names), 5))).astype(np.float32)
    skipped = more.pop("skipped", {})
    embedded = Embedded(vectors, np.full(len(names), np.nan, np.float32), skipped, len(names))
    return Known(pool, "made up", names, more.pop("gone", frozenset()), embedded, **more)


def wanted(count: int, method: str = "coverage") -> Wanted:
    return Wanted(method, Budget.parse(f"labels={count}"), 0)


def kinds(chosen: list[Asked]) -> set[int]:
    return {int(Path(asked.name).stem) % 4 for asked in chosen}


def earlier(names: list[str]) -> QueuePlan:
    asked = [Asked(round=1, rank=rank, name=name, why="of before") for rank, name in enumerate(names, 1)]
    first = Round(round=1, method="random", budget="labels=2", seed=0, chosen=2, pool=24, seconds=1.0)
    return QueuePlan(pool="pool", features="made up", images=24, rounds=[first], queue=asked)


def test_each_kind_of_picture_is_asked_for_and_the_plan_says_so(pool):
    plan, chosen = known(pool).choose(wanted(4), None, SILENT)
    assert kinds(chosen) == {0, 1, 2, 3}
    assert plan.queue == chosen and plan.rounds[0].chosen == 4 and plan.rounds[0].pool == plan.images == 24
    assert [asked.rank for asked in chosen] == [1, 2, 3, 4] and plan.waiting() == chosen


def test_a_further_round_asks_for_what_the_first_left_out(pool):
    names = known(pool).names
    before = earlier([next(n for n in names if int(Path(n).stem) % 4 == kind) for kind in (0, 1)])
    returned = Returned({before.queue[0].name: "zero"}, [], "list")
    plan, chosen = known(pool, before=before, returned=returned).choose(wanted(2), None, SILENT)
    assert kinds(chosen) == {2, 3} and chosen[0].round == 2
    assert plan.queue[:2] == before.queue and plan.labelled == {before.queue[0].name: "zero"}
    assert [asked.name for asked in plan.waiting()] == [before.queue[1].name, *(a.name for a in chosen)]


def test_images_that_are_gone_or_cannot_be_opened_are_passed_over(pool):
    state = known(pool, gone=frozenset([5]), skipped={7: "too small"})
    first = state.choose(wanted(20), None, SILENT)[1][0].name
    (pool / first).write_bytes(b"no picture")  # broken since it was embedded
    plan, chosen = state.choose(wanted(20), None, SILENT)
    assert len(chosen) == 20 and plan.rounds[0].pool == 21
    assert not {first, state.names[5], state.names[7]} & {asked.name for asked in chosen}
    assert {skipped.name for skipped in plan.skipped} == {first, state.names[7]} and plan.images == 23


def test_labels_with_classes_train_a_probe_and_others_do_not(pool):
    names = known(pool).names
    told = [name for name in names if int(Path(name).stem) // 4 % 2]  # half of every kind
    classes = {name: str(int(Path(name).stem) % 2) for name in told}
    probed = known(pool, returned=Returned(classes, [], "list")).pool(None, seed=0)
    assert probed.predictions is not None and probed.predictions.shape[1:] == (24, 2)
    assert probed.predictions.mean(0).argmax(1).tolist() == [int(Path(name).stem) % 2 for name in names]
    drawn = known(pool, returned=Returned(dict.fromkeys(told), [], "masks"))
    assert drawn.pool(None, seed=0).predictions is None
