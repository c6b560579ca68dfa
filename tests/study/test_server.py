"""The server of a study through FastAPI's test client: the way of a rater, and what others may not do."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.core.lock import FolderLock
from fewer.study.export import export_study, pathways_of, read_pathways
from fewer.study.new import new_study
from fewer.study.owner import status
from fewer.study.settings import StudySettings
from fewer.study.store import FILE, Store
from fewer.study.tables import read_opinions, read_scores

pytest.importorskip("fastapi", reason="the study server needs the extra fewer[study]")
pytest.importorskip("httpx", reason="the test client needs httpx")
pytest.importorskip("python_multipart", reason="the study server needs the extra fewer[study]")

GOOD = {
    "description": "The lamp in the upper left is very blurry and noisy.",
    "conclusion": "Overall, the quality is poor.",
}


def photos(folder, count=4):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def make(tmp_path):
    """A study, its clock, a client for each rater, and the codes."""
    from fastapi.testclient import TestClient

    from fewer.study.app import make_app

    class Study:
        now = 1e9

        def __init__(self, **settings):
            chosen = StudySettings(**{"raters": 3, "training": False, "repeats": 0.0, **settings})
            self.made = new_study(tmp_path / "study", photos(tmp_path / "photos"), chosen)
            with (tmp_path / "study" / "codes.csv").open() as file:
                self.codes = {row["rater"]: row["code"] for row in csv.DictReader(file)}
            self.store = Store(tmp_path / "study", clock=lambda: self.now)
            self.app = make_app(self.store)

        def client(self, rater=None):
            client = TestClient(self.app, base_url="http://localhost", follow_redirects=False)
            if rater:
                assert client.post("/login", data={"code": self.codes[rater]}).status_code == 303
            return client

    return Study


def fields(text):
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text))


def answer(client, **values):
    page = client.get("/next")
    return client.post("/answer", data=fields(page.text) | values)


def test_a_rater_from_login_to_the_end(make, tmp_path):
    study = make(forms=("pathway", "acr", "pair", "yes-no"), training=True)
    client = study.client("rater-0001")
    first = client.get("/next").text
    assert "Training 1 of 6" in first
    wrong = client.post("/train", data=fields(first) | {"level": "1"})
    assert "Most people say: excellent" in wrong.text
    for level in (5, 3, 2, 3, 2, 1):
        page = client.get("/next").text
        assert client.post("/train", data=fields(page) | {"level": str(level)}).status_code == 303
    for form in ("pathway", "acr", "pair", "yes-no"):
        for _ in range(4):
            choice = {"pathway": "", "acr": "3", "pair": "left", "yes-no": "no"}[form]
            assert answer(client, **GOOD, choice=choice, seconds="3.5").status_code == 303
    assert "All of your 16 answers" in client.get("/next").text
    written = export_study(study.store, tmp_path / "out")
    assert written.rows == {"pathways.json": 4, "votes.csv": 4, "pairs.csv": 4, "yes-no.csv": 4, "scores.csv": 4}
    assert {p.level for p in read_pathways(tmp_path / "out" / "pathways.json")} == {2}
    assert len(client.get("/mine").json()["answers"]) == 16


def test_an_image_is_the_very_file_and_only_ones_own(make, tmp_path):
    study = make(per_rater=1)
    client = study.client("rater-0001")
    number = int(re.search(r"/image/(\d+)", client.get("/next").text)[1])
    name = study.store.rows("SELECT file FROM images WHERE id = ?", number)[0]["file"]
    assert client.get(f"/image/{number}").content == (tmp_path / "photos" / name).read_bytes()
    others = [i for i in range(1, 5) if i != number]
    assert {client.get(f"/image/{i}").status_code for i in others} == {404}
    assert study.client().get(f"/image/{number}").status_code == 404
    for path in (
        "/image/../study.sqlite",
        "/image/%2e%2e%2fstudy.sqlite",
        "/static/../codes.csv",
        "/static/%2e%2e%2fstore.py",
    ):
        assert client.get(path).status_code in (404, 422), path
    assert client.get("/owner").status_code == 403
    study.store.connection.execute("UPDATE images SET file = '../study/codes.csv' WHERE id = ?", (number,))
    assert client.get(f"/image/{number}").status_code == 404


def test_posted_twice_counts_once_and_html_is_text(make):
    study = make()
    client = study.client("rater-0001")
    page = client.get("/next")
    evil = GOOD | {"description": "<script>alert(1)</script> the lamp is blurry & dark"}
    for _ in range(2):
        assert client.post("/answer", data=fields(page.text) | evil).status_code == 303
    assert study.store.progress(2)[0] == 1
    assert pathways_of(study.store)[0].description.startswith("<script>")
    study.store.connection.execute("UPDATE raters SET name = '<b>x</b>' WHERE id = 2")
    shown = study.client("owner").get("/owner").text
    assert "<b>x</b>" not in shown and "&lt;b&gt;x" in shown


def test_forms_from_elsewhere_are_refused(make):
    study = make()
    client = study.client("rater-0001")
    page = fields(client.get("/next").text)
    assert client.post("/answer", data=page | GOOD | {"csrf": "x"}).status_code == 403
    assert client.post("/answer", data=page | GOOD, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/answer", data=page | GOOD, headers={"origin": "http://localhost"}).status_code == 303
    other = study.client("rater-0002")
    assert other.post("/answer", data=page | GOOD).status_code == 403
    mine = fields(other.get("/next").text)
    assert other.post("/answer", data=mine | GOOD | {"item": page["item"]}).status_code == 404
    assert study.client().post("/answer", data=page | GOOD).status_code == 401
    assert client.get("/next", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/answer", data=page | {"description": "x" * 70_000}).status_code == 413
    assert client.put("/answer").status_code == 405
    assert client.post("/answer", data={"item": "no"}).status_code == 422
    headers = client.get("/next").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"


def test_bad_answers_come_back_with_a_sentence(make):
    study = make(forms=("acr", "pathway"))
    client = study.client("rater-0001")
    assert "please choose one of the answers" in answer(client, choice="9").text
    for _ in range(4):
        answer(client, choice="2")
    assert "please write the conclusion too" in answer(client, description="a b c d e").text
    assert "describe a little more" in answer(client, description="blurry", conclusion="bad").text


def test_codes_are_guessed_slowly_and_requests_are_limited(make):
    study = make(requests_per_minute=10)
    client = study.client("rater-0001")
    codes = [client.post("/login", data={"code": "wrong"}).status_code for _ in range(25)]
    assert codes[0] == 403 and codes[-1] == 429
    statuses = [client.post("/answer", data=fields(client.get("/next").text)).status_code for _ in range(12)]
    assert statuses[-1] == 429 and statuses[0] == 422
    assert study.codes["rater-0001"] not in (study.store.folder / FILE).read_bytes().decode("latin1")


def test_a_laboratory_behind_one_address_logs_in_at_once(make):
    study = make(raters=30)
    for rater in sorted(study.codes)[:30]:
        assert study.client(rater).get("/next").status_code in (200, 303)


def test_warning_and_pause(make):
    study = make(forms=("acr", "yes-no"), warn_after=2, pause_after=3, pause_seconds=60.0)
    client = study.client("rater-0001")
    answer(client, choice="1")
    assert "in a row" not in client.get("/next").text
    answer(client, choice="1")
    page = client.get("/next")
    assert "there will be a pause in 1 image." in page.text
    answer(client, choice="1")
    assert "Time for a pause" in client.get("/next").text
    item = study.store.item(2)
    late = client.post("/answer", data=fields(page.text) | {"item": str(item.id), "choice": "1"})
    assert late.status_code == 409 and "time for a pause" in late.text
    study.now += 61
    assert answer(client, choice="1").status_code == 303


def test_deletion_removes_all_of_one_rater_and_nothing_else(make):
    study = make(forms=("acr",))
    one, two = study.client("rater-0001"), study.client("rater-0002")
    answer(one, choice="1"), answer(two, choice="5")
    for _ in range(3):
        answer(one, choice="1")
    csrf = fields(one.get("/next").text)
    assert one.post("/forget", data=csrf).status_code == 422
    assert "4 answers were deleted" in one.post("/forget", data=csrf | {"sure": "yes"}).text
    assert one.get("/mine").status_code == 401
    assert one.post("/login", data={"code": study.codes["rater-0001"]}).status_code == 403
    assert [row["rater"] for row in study.store.rows("SELECT rater FROM answers")] == [3]
    with pytest.raises(FewerError, match="no rater 'rater-9'"):
        study.store.delete_rater("rater-9")


def test_an_export_holds_scores_that_become_rating_words(tmp_path):
    settings = StudySettings(forms=("acr",), raters=2, repeats=0.0, training=False)
    new_study(tmp_path / "other", photos(tmp_path / "photos"), settings)
    store = Store(tmp_path / "other")
    given = {}
    for row in store.rows("SELECT i.id, i.rater, m.file FROM items i JOIN images m ON m.id = i.image"):
        level = int(row["file"][0]) + 1 + (row["rater"] == 2)  # the second rater is kinder by one level
        store.submit(row["rater"], row["id"], {"level": level})
        given.setdefault(row["file"], []).append(level)
    for method in ("p910", "mos"):
        export_study(store, tmp_path / method, method=method)
        table = read_scores(tmp_path / method / "scores.csv")
        assert table == {name: pytest.approx(np.mean(levels)) for name, levels in given.items()}
    wide = [read_opinions(tmp_path / method / "scores.csv").deviations for method in ("mos", "p910")]
    assert set(wide[0].values()) == {0.5} and max(wide[1].values()) < 1e-3  # all of the difference is bias
    with pytest.raises(FewerError, match="unknown score method 'p901'; did you mean 'p910'"):
        export_study(store, tmp_path / "x", method="p901")
    assert not (tmp_path / "x").exists()


def test_gold_repeats_and_owner(make, tmp_path):
    photos(tmp_path / "photos")
    settings = StudySettings(forms=("acr",), raters=2, repeats=0.5, training=False, per_rater=2)
    new_study(tmp_path / "other", tmp_path / "photos", settings, scores={"1.png": 55.0}, gold={"0.png": 5})
    store = Store(tmp_path / "other")
    items = store.rows("SELECT * FROM items WHERE rater = 2 ORDER BY place")
    gold = store.rows("SELECT id FROM images WHERE gold IS NOT NULL")[0]["id"]
    assert gold in [row["image"] for row in items] and len(items) == 3
    assert items[2]["repeat_of"] in (items[0]["id"], items[1]["id"])
    for row in items:
        store.submit(2, row["id"], {"level": 4 if row["repeat_of"] is None else 3})
    found = status(store)
    row = found.raters["rater-0001"]
    assert row["answers"] == 3 and row["gold"] >= 1 and row["repeat_difference"] == 1.0
    assert row["gold_right"] >= 1 and "3 answers of 1 raters" in found.lines()[0]
    with pytest.raises(FewerError, match="is no readable image"):
        new_study(tmp_path / "third", tmp_path / "photos", settings, scores={"nope.png": 1.0})


def test_new_skips_counts_and_names_what_is_no_image(tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    made = new_study(tmp_path / "study", folder, StudySettings(raters=1))
    assert made.images == 4 and made.skipped[0][0] == "broken.jpg" and "skipped broken.jpg" in made.lines()[-1]
    assert (tmp_path / "study" / "codes.csv").stat().st_mode & 0o077 == 0
    with pytest.raises(FewerError, match="holds a study already"):
        new_study(tmp_path / "study", folder)
    with pytest.raises(FewerError, match="holds no study"):
        Store(tmp_path)
    (tmp_path / "s.csv").write_text("file,score\na.png,3\n")
    assert read_scores(tmp_path / "s.csv") == {"a.png": 3.0}
    with pytest.raises(FewerError, match="unknown form 'acx'"):
        StudySettings.of({"forms": ["acx"]})


def test_two_servers_on_one_study(make):
    from fewer.study.serve import serve

    study = make()
    lock = FolderLock(study.store.folder)
    lock.take()
    try:
        with pytest.raises(FewerError, match="is in use by process"):
            serve(study.store.folder, port=1)
    finally:
        lock.release()
    with pytest.raises(FewerError, match="by which name"):
        serve(study.store.folder, host="0.0.0.0")
    for port in (-1, 0, 65536, 10**9):
        with pytest.raises(FewerError, match="between 1 and 65535"):
            serve(study.store.folder, port=port)
    for host in ("no such host", "a" * 300, "300.1.1.1"):
        with pytest.raises(FewerError, match="cannot listen"):
            serve(study.store.folder, host=host, names=("x",), port=9)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("0.png,nan\n", "no number"), ("0.png,inf\n", "no number"), ("0.png,1e999\n", "no number"),
        ("0.png,3\n0.png,4\n", "two numbers"), ("0.png,3\n1.png\n", "line 2"), ("x" * 200_000 + ",1\n", "damaged"),
    ],
)  # fmt: skip
def test_scores_that_are_none_are_told(tmp_path, table, says):
    (tmp_path / "t.csv").write_text(table)
    folder = photos(tmp_path / "photos", 2)
    with pytest.raises(FewerError, match=says):
        new_study(tmp_path / "study", folder, StudySettings(raters=1), scores=read_scores(tmp_path / "t.csv"))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("level", [0, 6, 2.5, float("nan"), float("inf"), -3])
def test_gold_levels_are_from_one_to_five(tmp_path, level):
    with pytest.raises(FewerError, match="whole number from 1 to 5"):
        new_study(tmp_path / "study", photos(tmp_path / "p", 2), StudySettings(raters=1), gold={"0.png": level})


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3])
def test_what_was_acknowledged_outlives_kill_9(tmp_path, after):
    folder = photos(tmp_path / "photos", 30)
    new_study(tmp_path / "study", folder, StudySettings(forms=("acr",), raters=1, training=False, pause_after=1000))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        store = Store(tmp_path / "study")
        while (item := store.item(2)) is not None:
            store.submit(2, item.id, {"level": 3})
            os.write(writer, b"%d\n" % item.id)
        os._exit(0)
    os.close(writer)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as pipe:
        told = {int(line) for line in pipe if line.endswith("\n")}
    store = Store(tmp_path / "study")
    kept = {row["item"] for row in store.rows("SELECT item, answer FROM answers") if json.loads(row["answer"])}
    assert told <= kept and len(kept) <= len(told) + 1
    row = store.rows("SELECT in_a_row FROM raters WHERE id = 2")[0]
    assert row["in_a_row"] == len(kept)  # the count belongs to the same transaction
    assert store.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_many_threads_lose_and_double_nothing(make):
    from concurrent.futures import ThreadPoolExecutor

    study = make(forms=("acr",))
    items = [(row["rater"], row["id"]) for row in study.store.rows("SELECT rater, id FROM items")]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda pair: study.store.submit(*pair, {"level": 2}), items * 3))
    assert sum(new) == len(items) == study.store.rows("SELECT COUNT(*) AS n FROM answers")[0]["n"]


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE items",
        "UPDATE answers SET answer = 'x'",
        "UPDATE answers SET answer = '[]'",
        'UPDATE answers SET answer = \'{"level": "high"}\'',
    ],
)
def test_a_damaged_study_is_told_in_a_sentence(tmp_path, change):
    import sqlite3

    from fewer.core.errors import FewerError
    from fewer.study.new import new_study
    from fewer.study.owner import status
    from fewer.study.settings import StudySettings
    from fewer.study.store import FILE, Store

    (tmp_path / "photos").mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (index * 80, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    new_study(tmp_path / "study", tmp_path / "photos", StudySettings(forms=("acr",), raters=1))
    with sqlite3.connect(tmp_path / "study" / FILE) as connection:
        connection.execute("INSERT INTO answers SELECT id, rater, 1.0, 2.0, '{\"level\": 3}' FROM items LIMIT 1")
        connection.execute(change)
    connection.close()
    store = Store(tmp_path / "study")
    with pytest.raises(FewerError, match=r"restore it from a backup|is not valid JSON"):
        status(store)
    store.close()


def test_a_photo_whose_name_cannot_be_kept_is_left_out_and_named(tmp_path):
    import os

    from fewer.study.new import new_study

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    shown = os.fsencode(tmp_path / "photos" / "a.png").replace(b"a.png", b"caf\xe9.png")
    os.link(tmp_path / "photos" / "a.png", shown)
    (tmp_path / "photos" / "loop.png").symlink_to("loop.png")
    made = new_study(tmp_path / "study", tmp_path / "photos")
    assert made.images == 1
    assert [name for name, _ in made.skipped] == ["caf\\xe9.png", "loop.png"]


@pytest.mark.parametrize("number", [2**63, 2**80, -(2**70), 10**4000])
def test_numbers_that_no_page_has_sent(make, number):
    study = make(forms=("acr",))
    client = study.client("rater-0001")
    page = fields(client.get("/next").text)
    assert client.post("/answer", data=page | {"item": str(number), "choice": "3"}).status_code in (404, 422)
    assert client.post("/train", data=page | {"step": str(number), "level": str(number)}).status_code in (303, 422)
    assert client.get(f"/image/{number}").status_code in (404, 422)


def test_a_store_that_breaks_while_it_is_served_is_told_in_a_sentence(make):
    study = make(forms=("acr",))
    client = study.client("rater-0001")
    study.store.connection.execute("DROP TABLE answers")
    page = client.get("/next")
    assert page.status_code == 500 and "tell its owner" in page.text and "answers" not in page.text


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm", "codes.csv", "training"])
def test_a_study_is_not_written_through_links(make, tmp_path, name):
    study = make()
    study.store.close()
    place, outside = tmp_path / "study" / name, tmp_path / "outside"
    if place.exists():
        place.rename(outside) if not place.is_dir() else (place.rmdir(), outside.mkdir())
    else:
        outside.write_bytes(b"precious")
    place.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else b""
    with pytest.raises(FewerError, match="symbolic link"):
        Store(tmp_path / "study")
    assert (outside.read_bytes() if outside.is_file() else b"") == before


def test_a_database_with_a_second_name_is_refused(make, tmp_path):
    study = make()
    study.store.close()
    (tmp_path / "kept.sqlite").hardlink_to(tmp_path / "study" / FILE)
    with pytest.raises(FewerError, match="second name"):
        Store(tmp_path / "study")


@pytest.mark.parametrize("origin", ["http://[::1", "null", "//", "http://localhost:99999", "x" * 5000])
def test_an_origin_that_is_no_address_is_refused(make, origin):
    client = make().client("rater-0001")
    page = fields(client.get("/next").text)
    assert client.post("/answer", data=page | GOOD, headers={"origin": origin}).status_code == 403


def test_what_browsers_show_otherwise_is_sent_as_models_see_it(make, tmp_path):
    import io

    from fewer.data.decode import read_image

    photos(tmp_path / "photos", 6)
    study = make(forms=("acr",), raters=1)
    client, folder = study.client("rater-0001"), tmp_path / "photos"
    grey = (np.random.default_rng(5).random((40, 60)) * 65535).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "0.png": lambda path: Image.fromarray(grey).save(path, "PNG"),
        "1.png": lambda path: Image.new("CMYK", (6, 5), (9, 200, 30, 4)).save(path, "JPEG"),
        "2.png": lambda path: Image.new("RGBA", (6, 5), (9, 200, 30, 0)).save(path, "TIFF"),
        "3.png": lambda path: Image.new("RGB", (6, 5), (9, 200, 30)).save(path, "JPEG"),
        "4.png": lambda path: Image.new("RGB", (6, 5), (9, 200, 30)).save(path, "PNG", exif=turned),
        "5.png": lambda path: Image.new("RGB", (6, 5), (9, 200, 30)).save(path, "WEBP", exif=turned),
    }
    for name, write in kinds.items():
        write(folder / name)
        number = study.store.rows("SELECT id FROM images WHERE file = ?", name)[0]["id"]
        answer = client.get(f"/image/{number}")
        if name == "3.png":  # a wrong ending: sent as it is, under its right name
            assert answer.headers["content-type"] == "image/jpeg" and answer.content == (folder / name).read_bytes()
            continue
        with Image.open(io.BytesIO(answer.content)) as shown:
            assert shown.format == "PNG" and shown.mode == "RGB"
            assert np.array_equal(np.asarray(shown), np.asarray(read_image(folder / name).convert("RGB")))
    (folder / "0.png").write_bytes(b"II*\0 broken")
    number = study.store.rows("SELECT id FROM images WHERE file = '0.png'")[0]["id"]
    answer = client.get(f"/image/{number}")
    assert answer.status_code == 404 and "tell the owner" in answer.text


def test_raters_learn_on_a_photo_that_shows_all_defects(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(rng.integers(0, 255, (1, 1, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 255, (400, 400), np.uint8)).save(folder / "b.png")
    chosen = StudySettings(raters=1)
    new_study(tmp_path / "grey", folder, chosen)
    with Image.open(tmp_path / "grey" / "training" / "1.png") as image:  # the largest, where none is in colour
        assert image.size == (400, 400)
    colours = rng.integers(0, 255, (300, 280, 3), np.uint8)
    Image.fromarray(colours).save(folder / "c.png")
    new_study(tmp_path / "colour", folder, chosen)
    with Image.open(tmp_path / "colour" / "training" / "1.png") as image:
        assert np.array_equal(np.asarray(image), colours)
