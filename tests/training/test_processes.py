"""Two processes train what one does that accumulates two batches, whichever method of the model a loss calls."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewer
from fewer.models.spec import load_model
from fewer.training.loop import fit, make_accelerator
from fewer.training.settings import LoopSettings
from tests.tasks.classify.shapes import write_folders

SETTINGS = {"steps": 6, "every": 3, "optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.05}


class Net(nn.Module):
    """Gives its loss by a method of its own, not by a forward pass."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 1)
        self.unused = nn.Linear(2, 2)

    def loss(self, x: Tensor, wanted: Tensor) -> Tensor:
        self.norm(x @ x.new_ones(4, 8))  # statistics that differ between batches; they change no gradient
        return (self.last(self.first(x).relu()) - wanted).square().mean()


def objective(net: Any, step: int) -> Tensor:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return net.loss(x, x.sum(1, keepdim=True))


def train(seed: int, accumulate: int, folder: Path) -> None:
    """Train and keep the weights; a name for each process."""
    net = Net(seed)
    settings = LoopSettings(**SETTINGS, accumulate=accumulate)
    accelerator = make_accelerator(settings)
    fit(net, objective, settings, accelerator, validate=lambda net: -float(objective(net.eval(), 1000).detach()))
    torch.save(net.state_dict(), folder / f"{accelerator.process_index}.pt")


def launch(words: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", *words]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_train_what_one_does_that_accumulates(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    train(0, 2, tmp_path / "alone")
    # the processes begin with other weights, and must be given those of the first
    script = tmp_path / "both.py"
    script.write_text(
        "import os\nfrom pathlib import Path\nfrom tests.training.test_processes import train\n"
        f"train(int(os.environ['RANK']), 1, Path({str(tmp_path)!r}))\n"
    )
    launch([str(script)])
    one, first, second = (torch.load(tmp_path / name) for name in ("alone/0.pt", "0.pt", "1.pt"))
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name
        if "running_var" not in name and "num_batches" not in name:  # one has seen twelve batches, each of two six
            assert torch.allclose(first[name], tensor, atol=1e-6), name


def test_one_process_owns_the_run(tmp_path: Path) -> None:
    photos = write_folders(tmp_path / "photos")
    how = {"steps": "3", "every": "3", "batch": "4", "input-size": "16", "network": "resnet8"}
    flags = [part for name, value in how.items() for part in (f"--{name}", value)]
    launch(["-m", "fewer", "train", str(photos), "--task", "classify", "--out", str(tmp_path / "two"), *flags])
    run = load_model(str(tmp_path / "two"))
    assert fewer.evaluate(str(tmp_path / "two"), photos) is not None and run.model is not None


@pytest.mark.parametrize("teacher", [False, True])
def test_a_loss_by_any_method_has_the_precision_of_the_settings(teacher: bool) -> None:
    from fewer.training.average import Average

    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu())

    net = Two(0)
    average = Average(net, 0.9) if teacher else None
    inside, outside = set(), set()
    net.last.register_forward_hook(lambda _module, _given, found: inside.add(found.dtype))

    def both(net: Two, step: int) -> Tensor:
        x = torch.randn(8, 4)
        outside.add(net(x).dtype)
        if average is not None:
            outside.add(average.teacher()(x).dtype)
        return net.loss(x, x.sum(1, keepdim=True)) + net(x).square().mean()

    fit(net, both, LoopSettings(steps=2, precision="bf16"), average=average)
    assert inside == {torch.bfloat16} and outside == {torch.float32}
    assert not net._forward_hooks and net(torch.randn(1, 4)).dtype == torch.float32


def test_weights_learn_though_they_were_used_without_gradients_before() -> None:
    """Torch keeps the weights in few digits for a whole step, and those that were made first had no gradients."""
    net = nn.Linear(4, 1)
    before = net.weight.detach().clone()

    def twice(net: nn.Module, step: int) -> Tensor:
        x = torch.randn(8, 4)
        with torch.no_grad():
            wanted = net(x) + 1
        return (net(x) - wanted).square().mean()

    fit(net, twice, LoopSettings(steps=2, precision="bf16", weight_decay=0.0))
    assert not torch.equal(net.weight, before)
