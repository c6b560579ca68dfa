"""What a run is held against: the very weights that it was made of, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fewer
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.models.options import with_options
from fewer.models.spec import load_model
from fewer.models.trust import trusting
from fewer.timing.sources import open_subject

QUICK = fewer.Settings(additivity=0, baselines=(), workers=1, calibration=8, sensing=4, heldout=4)


@pytest.mark.parametrize("seeded", [True, False])
def test_an_original_that_has_other_weights_now_is_no_reference(tmp_path: Path, seeded: bool) -> None:
    """A file that makes random weights gave another network at every call, and the run was compared with it."""
    seed = "    torch.manual_seed(0)\n" if seeded else ""
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\ndef make():\n"
        + seed
        + "    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8)), {'input_size': (3, 4, 4)}\n"
    )
    images = torch.randn(16, 3, 4, 4)
    fewer.compress(f"{file}:make", images, "weights=50%", out=tmp_path / "run", settings=QUICK)
    with trusting(True):
        subject = open_subject(tmp_path / "run")
    assert bool(subject.notes) != seeded
    if not seeded:
        assert "other weights now" in subject.notes[0]


def test_a_run_of_a_checkpoint_is_held_against_that_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from fewer.models import builtin

    torch.manual_seed(5)
    mine = builtin.build("mnist-cnn")
    save_file(mine.state_dict(), tmp_path / "mine.safetensors")
    spec = with_options("fewer/mnist-cnn", checkpoint=tmp_path / "mine.safetensors")
    loaded = load_model(spec)
    with RunFolder.create(tmp_path / "run") as run:
        run.write_config({"model": spec, "settings": {}})
    save_artefact(tmp_path / "run", loaded.model, [], loaded.source, preprocess=loaded.preprocess)
    subject = open_subject(tmp_path / "run")
    assert not subject.notes
    for name, value in mine.state_dict().items():
        assert torch.equal(value, subject.model.state_dict()[name])
