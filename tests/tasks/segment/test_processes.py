"""Two processes with half of a batch each train the very weights that one process with the whole batch trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewer.models.spec import load_model
from tests.tasks.segment.simulated import write_folder

pytest.importorskip("monai", reason="needs the [medical] extra")

FLAGS = "--width 4 --levels 3 --patch-voxels 1024 --steps 3 --every 2 --loss ce --optimiser sgd --learning-rate 0.01"


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", 5, (32, 32))
    from fewer.cli import main

    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["train", str(tmp_path / "data"), "--out", str(one), "--batch", "4", "--json", *FLAGS.split()]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        f"--master_port={port}",
        "-m",
        "fewer",
    ]
    words += ["train", str(tmp_path / "data"), "--out", str(two), "--batch", "2", *FLAGS.split()]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_model(str(folder)).model.state_dict() for folder in (one, two))
    for name, tensor in first.items():
        assert torch.allclose(second[name], tensor, atol=1e-6), name
