"""The page of a queue."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from fewer.selection import page as gallery
from fewer.selection.plan import Asked, QueuePlan, Round, Skipped


def a_plan(count: int, pool: int, labelled: int = 0) -> QueuePlan:
    rounds = [Round(round=1, method="coverage", budget=f"labels={count}", seed=0, chosen=count, pool=pool, seconds=1.5)]
    queue = [Asked(round=1, rank=i + 1, name=f"{i}.png", why="it is <typical>") for i in range(count)]
    done = {f"{pool - 1 - i}.png": "crack" for i in range(labelled)}
    return QueuePlan(pool="p", features="fewer/x", images=pool, rounds=rounds, queue=queue, labelled=done)


@pytest.fixture
def root(tmp_path):
    for index in range(12):
        Image.new("RGB", (30, 20), (index * 20, 90, 120)).save(tmp_path / f"{index}.png")
    return tmp_path


def render(plan, root, pool=12):
    vectors = np.random.default_rng(0).normal(size=(pool, 5)).astype(np.float32)
    return gallery.render_gallery(plan, vectors, [f"{i}.png" for i in range(pool)], root, "fewer select <p>")


def test_pictures_reasons_and_map(root):
    page = render(a_plan(4, 12, labelled=2), root)
    assert (
        page.count("<img ") > 4
        and page.count('class="rank"') == 4
        and "it is &lt;typical&gt;" not in page
        and "It is &lt;typical&gt;" in page
    )
    assert (
        "Label these 4 images" in page and "labelled or asked for before" in page and "fewer select &lt;p&gt;" in page
    )
    assert page == render(a_plan(4, 12, labelled=2), root)


def test_a_long_queue_shows_the_first_pictures_only(root, monkeypatch):
    monkeypatch.setattr(gallery, "SHOWN", 3)
    page = render(a_plan(10, 12), root)
    assert page.count('class="rank"') == 3 and "7 more are in" in page


def test_an_image_that_is_gone_and_a_pool_too_small_for_a_map(root):
    (root / "0.png").unlink()
    plan = a_plan(1, 2).model_copy(update={"skipped": [Skipped(name="1.png", reason="broken")]})
    page = render(plan, root, pool=2)
    assert "Label this image" in page and "gone" in page and "plot-wide" not in page.split("</style>")[1]
    assert "broken" in page


def test_one_direction_and_twins_can_be_drawn(root):
    names = [f"{i}.png" for i in range(12)]
    assert gallery.flat_map(a_plan(2, 12), np.ones((12, 4), np.float16), names) is not None
    assert gallery.flat_map(a_plan(2, 12), np.arange(12.0)[:, None], names) is not None


def test_each_card_shows_what_it_stands_for(root):
    """Two clear groups: each chosen image shows pictures of its own group, the closest first."""
    angles = np.deg2rad([0, 2, 4, 6, 8, 10, 80, 82, 84, 86, 88, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    names = [f"{i}.png" for i in range(12)]
    own = gallery.nearest_of(["0.png", "11.png"], vectors, names, {"1.png"})
    assert [rows.tolist() for rows in own] == [[2, 3, 4, 5], [10, 9, 8, 7, 6]]
    plan = a_plan(1, 12)
    page = gallery.render_gallery(plan, vectors, names, root)
    near = page[page.index('class="near"') :]
    assert near.index('alt="1.png"') < near.index('alt="11.png"') and "Most alike to it: 11 images" in near


def test_all_of_the_pool_is_shared_out_once(root):
    vectors = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float16)
    names = [f"{i}" for i in range(50)]
    own = gallery.nearest_of(names[:7], vectors, names)
    assert sorted(np.concatenate(own).tolist()) == list(range(7, 50))


def test_the_map_has_pictures_of_the_chosen_images(root):
    plan, names = a_plan(3, 12), [f"{i}.png" for i in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 5))
    bare, shown = gallery.flat_map(plan, vectors, names), gallery.flat_map(plan, vectors, names, root)
    assert bare is not None and shown is not None
    assert bare.wide.count("<image") == 0 and shown.wide.count("<image") == shown.narrow.count("<image") == 3
    assert shown.wide.count('href="data:image/png;base64,') == 3


def test_pictures_at_the_edge_of_the_map_are_not_cut_off(root):
    """A point at every edge: its picture goes to the other side."""
    plan, names = a_plan(4, 12), [f"{i}.png" for i in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 2))
    vectors[:4] = [(9, 0.1), (-9, 0.2), (0.1, 9), (0.2, -9)]
    found = gallery.flat_map(plan, vectors, names, root)
    assert found is not None
    places = re.findall(r'<image [^>]*x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"', found.narrow)
    assert len(places) == 4
    for x, y, width, height in (tuple(map(float, place)) for place in places):
        assert x >= 0 and x + width <= 360 and height <= -y + height <= 340
