"""Studies as laboratories have them: odd files beside the photos, two on one machine, photos that were moved."""

from __future__ import annotations

import csv
import re

import pytest

from fewer.core.errors import FewerError
from fewer.study.export import pathways_of
from fewer.study.new import new_study
from fewer.study.settings import StudySettings
from fewer.study.store import FILE, Store
from tests.study.test_server import GOOD, answer, make, photos  # noqa: F401


def test_pictures_of_other_kinds_are_named_and_other_files_counted(tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "deep").mkdir()
    for name in ("deep/phone.HEIC", "moving.gif", "mos.csv", "deep/notes.txt", "README", ".hidden.gif"):
        (folder / name).write_bytes(b"x")
    made = new_study(folder / "study", folder, StudySettings(raters=1, training=False))
    assert made.images == 4 and dict(made.others) == {".csv": 1, ".txt": 1, "no suffix": 1}
    assert [name for name, _ in made.skipped] == ["deep/phone.HEIC", "moving.gif"]
    assert "skipped moving.gif: pictures of the kind .gif are not read; save it as PNG or JPEG" in made.lines()
    again = new_study(tmp_path / "again", folder, StudySettings(raters=1, training=False), only=["0.png"])
    assert not again.skipped and not again.others


def test_two_studies_on_one_machine_do_not_log_each_other_out(tmp_path):
    from fastapi.testclient import TestClient

    from fewer.study.app import make_app

    clients, cookies, pages = [], {}, []
    for name in ("one", "two"):
        folder = photos(tmp_path / f"photos of {name}")
        new_study(tmp_path / name, folder, StudySettings(raters=1, training=False))
        store = Store(tmp_path / name)
        with (tmp_path / name / "codes.csv").open() as file:
            code = [row["code"] for row in csv.DictReader(file)][1]
        # a browser keeps cookies by the name of the machine alone, whatever the port
        client = TestClient(make_app(store), base_url="http://localhost", follow_redirects=False)
        assert client.post("/login", data={"code": code}).status_code == 303
        cookies |= dict(client.cookies)
        clients.append(client)
    assert len(cookies) == 2
    for client in clients:
        client.cookies.update(cookies)
        pages.append(client.get("/next").text)
        assert client.get(re.search(r'src="(/image/[^"]+)"', pages[-1])[1]).status_code == 200
    # nor is the image or the draft of one study shown in another one that has its address later
    for what in (r'src="(/image/[^"]+)"', r'data-item="([^"]+)"'):
        assert not set(re.findall(what, pages[0])) & set(re.findall(what, pages[1]))


def test_what_was_deleted_is_not_in_the_file_any_more(make):  # noqa: F811
    study = make()
    client = study.client("rater-0001")
    secret = "The zanzibar lamp in the upper left is very blurry and noisy."
    answer(client, description=secret, conclusion="Overall, the quality is poor.")
    answer(study.client("rater-0002"), **GOOD)
    study.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"zanzibar" in study.store.path.read_bytes()
    assert study.store.delete_rater("rater-0001") == 1
    kept = [study.store.path, *study.store.folder.glob(f"{FILE}-*")]
    assert not any(b"zanzibar" in path.read_bytes() for path in kept)
    assert study.store.rows("SELECT last, trained FROM raters WHERE name = 'rater-0001'")[0]["last"] == 0
    assert len(pathways_of(study.store)) == 1


def test_photos_that_were_moved(make, tmp_path):  # noqa: F811
    from fewer.study.serve import serve

    study = make()
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(FewerError, match=r"none of the 4 photos of this study is in .*--images FOLDER"):
        serve(tmp_path / "study")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FewerError, match="has none of the 4 photos"):
        serve(tmp_path / "study", images=tmp_path / "empty")
    (tmp_path / "elsewhere" / "2.png").unlink()
    told = []
    with pytest.raises(FewerError, match="cannot listen"):
        serve(tmp_path / "study", images=tmp_path / "elsewhere", host="no such host", names=("x",), tell=told.append)
    assert told[0].startswith("1 of 4 photos are not in ") and "2.png" in told[0]
    assert Store(tmp_path / "study").images == tmp_path / "elsewhere"
    study.store.close()


def test_a_table_of_a_whole_database_and_a_part_of_its_images(tmp_path):
    import fewer

    (tmp_path / "mos.csv").write_text("image_name,MOS\n" + "".join(f"{i}.png,{i % 5}\n" for i in range(40)))
    more = {"raters": 1, "training": False, "scores": tmp_path / "mos.csv"}
    made = fewer.study_new(tmp_path / "s", photos(tmp_path / "photos"), **more)
    assert made.images == 4 and made.absent == 36 and "36 scores are of images that are not there" in made.lines()
    some = fewer.study_new(tmp_path / "t", tmp_path / "photos", sample=2, **more)
    assert some.images == 2 and not some.absent
    (tmp_path / "other").mkdir()
    (tmp_path / "photos" / "0.png").rename(tmp_path / "other" / "x.png")
    with pytest.raises(FewerError, match="names must be the same"):
        fewer.study_new(tmp_path / "u", tmp_path / "other", sample=1, **more)


def test_a_server_is_called_by_its_name_however_it_was_given(make, tmp_path, monkeypatch):  # noqa: F811
    import uvicorn
    from fastapi.testclient import TestClient

    from fewer.study.serve import serve

    make()
    apps = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: apps.append(server.config.app))
    names, told = ("Study.Example.org", "https://two.example.org:8443/", "10.0.0.7:80"), []
    serve(tmp_path / "study", host="::1", names=names, tell=told.append)
    assert told[0].startswith("http://[::1]:8000/")
    for name, status in (("study.example.org", 200), ("two.example.org", 200), ("10.0.0.7", 200), ("x.org", 421)):
        assert TestClient(apps[0], base_url=f"http://{name}:8000").get("/").status_code == status
    with pytest.raises(FewerError, match="is no name of a machine"):
        serve(tmp_path / "study", names=("https://",))


def test_forms_and_questions_that_make_no_sense(make):  # noqa: F811
    with pytest.raises(FewerError, match="the form 'acr' is given twice"):
        StudySettings.of({"forms": ["acr", "pair", "acr"]})
    for questions in ([], ["Is it sharp?", "  "]):
        with pytest.raises(FewerError, match="a question of the form yes-no"):
            StudySettings.of({"forms": ["yes-no"], "questions": questions})
    # studies that an older version made are still read
    old = StudySettings.read('{"forms": ["acr", "acr"], "questions": [""]}')
    assert old.forms == ("acr",) and old.questions == StudySettings().questions
