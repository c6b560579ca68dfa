"""The notebooks run from top to bottom, and end in a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebooks_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    found = json.loads(notebook.read_text("utf-8"))
    cells = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert found["nbformat"] == 4 and "image/png" in cells[-1]["outputs"][0]["data"]
    names: dict[str, object] = {"__name__": "__notebook__"}
    for number, cell in enumerate(cells, 1):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
    assert type(names["figure"]).__name__ == "Figure"
