"""The four steps of encrypted inference as verbs and on the command line."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fewer.cli.main import main
from fewer.core.errors import FewerError
from fewer.data.assets import asset_path


def test_compile_keys_and_query(tmp_path, capsys) -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    testclient = pytest.importorskip("fastapi.testclient", reason='needs pip install "fewer[private]"')
    from fewer.private.keys import load_circuit
    from fewer.verbs.private import private_compile, private_keys, private_query, private_service

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    images = torch.randn(20, 1, 8, 8)
    found = private_compile(net, images, tmp_path / "circuit")
    assert found["levels"] == 2 and found["security"] == "128 bits" and found["agreement"] > 0.7
    assert main(["private", "keys", str(tmp_path / "circuit"), "--out", str(tmp_path / "keys")]) == 0
    http = testclient.TestClient(private_service(tmp_path / "circuit"))

    def send(path: str, body: bytes) -> bytes:
        return http.post(path, content=body).content

    rows = private_query(tmp_path / "keys", [images[0].numpy()], send)
    assert rows[0]["class"] == int(np.argmax(rows[0]["scores"])) and found["images"] == 5 and found["apart"]
    wanted = load_circuit(tmp_path / "circuit")[0].run(images[:1].numpy())[0]
    assert np.abs(np.array(rows[0]["scores"]) - wanted).max() < 1e-3
    with pytest.raises(FewerError, match="would make old answers unreadable"):
        private_keys(tmp_path / "circuit", tmp_path / "keys")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compile", "fewer/mnist-cnn"], "where to?"),
        (["compile", "fewer/mnist-cnn", "--out", "x"], "--images FOLDER"),
        (["compile", "fewer/mnist-cnn", "--images", "x", "--out", "y", "--budget", "size=1MB"], "not for 'size'"),
        (
            ["compile", "fewer/mnist-cnn", "--images", "x", "--out", "y", "--budget", "he=-1x"],
            "asks for nothing at all",
        ),
        (["compile", "fewer/mnist-cnn", "--images", "x", "--out", "y", "--steps", "-1"], "0 or more"),
        (["compile", "fewer/mnist-cnn", "--images", "x", "--out", "a-file"], "is a file"),
        (["compile", "fewer/mnist-cnn", "--images", "x", "--out", "done"], "holds a circuit already"),
        (["query", "keys-alone", "a.png"], "keys without their public.json"),
        (["serve", "done", "--port", "99999999"], "between 1 and 65535"),
        (["keys", "nowhere", "--out", "x"], "holds no public.json"),
        (["query", "nowhere"], "which images?"),
        (["query", "nowhere", "a.png"], "holds no keys"),
        (["serve", "nowhere"], "holds no public.json"),
    ],
)
def test_what_is_missing_is_told(words, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    for folder, names in (
        ("done", ["public.json", ".fewer-circuit"]),
        ("keys-alone", ["secret.key", "relin.key", "galois.key", "id"]),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    assert main(["private", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.assets
def test_the_command_line_compiles(tmp_path, capsys) -> None:
    try:
        asset_path("usps-cnn")
    except FewerError as error:
        pytest.skip(str(error))
    (tmp_path / "digits").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "digits" / f"{i}.png")
    words = ["private", "compile", "fewer/usps-cnn", "--images", str(tmp_path / "digits")]
    code = main([*words, "--out", str(tmp_path / "circuit"), "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    found = json.loads(out.out)
    assert (found["ring"], found["levels"]) == (8192, 4) and (tmp_path / "circuit" / "public.json").is_file()


NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 1), nn.Sigmoid())
    return net, {"input_size": (1, 10, 11), "mean": 0.4, "std": 0.2, "crop": 0.5, "interpolation": "nearest"}
"""


def test_a_query_sees_files_as_the_network_does_and_ends_as_it_does(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    testclient = pytest.importorskip("fastapi.testclient", reason='needs pip install "fewer[private]"')
    from fewer.data.decode import read_image, to_array
    from fewer.models.spec import load_model
    from fewer.verbs.private import private_keys, private_query, private_service

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 37), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    code = main(["private", "compile", "net.py:make", "--images", "photos", "--out", "circuit"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "--steps 400 teaches" in said.out
    assert "skipped broken.png" in said.out and "of 6 images that nothing was fitted to" in said.out
    private_keys("circuit", "keys")
    http = testclient.TestClient(private_service("circuit"))
    row = private_query("keys", ["photos/3.png"], lambda path, body: http.post(path, content=body).content)[0]
    loaded = load_model("net.py:make")
    pixels = torch.from_numpy(to_array(read_image("photos/3.png"), loaded.preprocess))[None]
    wanted = float(loaded.model(pixels))
    assert abs(row["scores"][0] - wanted) < 0.1 and row["class"] == int(row["scores"][0] > 0.5)


def test_compress_makes_a_circuit_where_the_budget_is_one_of_a_circuit(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    words = ["compress", "net.py:make", "--images", "photos", "--budget", "levels=1"]
    assert main([*words, "--pattern", "columns"]) == 2
    assert "--pattern has no meaning" in capsys.readouterr().err
    assert main([*words, "--device", "cuda"]) == 2
    assert "device 'cuda' cannot be used" in capsys.readouterr().err
    assert main([*words, "--dry-run"]) == 0
    assert "would compile net.py:make within levels=1 and write circuit" in capsys.readouterr().out
    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 37), dtype=np.uint8)).save(f"photos/{i}.png")
    monkeypatch.setattr("fewer.cli.compress._STEPS", 2)
    for room in ("price", "trial"):
        monkeypatch.setattr(f"fewer.private.{room}.has_seal", lambda: False)
    code = main([*words, "--out", "cheap", "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert json.loads(said.out)["levels"] == 1 and (tmp_path / "cheap" / "circuit.html").is_file()


def test_a_port_that_is_taken_is_told(monkeypatch, capsys) -> None:
    pytest.importorskip("uvicorn", reason='needs pip install "fewer[private]"')

    async def app(scope, receive, send) -> None:
        raise NotImplementedError

    monkeypatch.setattr("fewer.verbs.private.private_service", lambda _circuit: app)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["private", "serve", "circuit", "--port", str(taken.getsockname()[1])]) == 2
    assert "give another --port" in capsys.readouterr().err
