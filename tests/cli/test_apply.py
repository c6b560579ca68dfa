"""Apply: the plan of this run and no other, and nothing that is there is written over."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import QUICK


def test_a_plan_of_another_model_is_refused(fewer) -> None:
    for spec, out in (("net.py:net", "a"), ("net.py:wider", "b")):
        assert fewer("sense", spec, "--images=photos", f"--out={out}", *QUICK).code == 0
        assert fewer("plan", out, "--budget=weights=50%").code == 0
    told = fewer("apply", "a", "--plan=b/plan.json")
    assert told.code == 2 and told.err.count("\n") == 1
    assert not Path("a/model.safetensors").exists()


def test_a_plan_that_is_no_plan_is_told(fewer) -> None:
    assert fewer("sense", "net.py:net", "--images=photos", "--out=run", *QUICK).code == 0
    told = fewer("apply", "run")
    assert told.code == 2 and "plan" in told.err
    Path("odd.json").write_text(json.dumps({"units": 3}))
    assert fewer("apply", "run", "--plan=odd.json").code == 2


def test_a_run_that_is_written_over_stays_until_the_new_one_is_there(fewer) -> None:
    assert fewer("compress", "net.py:net", "--images=photos", "--out=old", "--budget=weights=70%", *QUICK).code == 0
    assert fewer("sense", "net.py:net", "--images=photos", "--out=run", *QUICK).code == 0
    assert fewer("plan", "run", "--budget=weights=50%").code == 0
    before = {path.name: path.read_bytes() for path in Path("old").iterdir()}
    assert fewer("apply", "run", "--out=old", "--overwrite", "--images=gone").code == 2
    assert {path.name: path.read_bytes() for path in Path("old").iterdir()} == before
    assert fewer("apply", "run", "--out=old").code == 2
    assert fewer("apply", "run", "--out=old", "--overwrite").code == 0
    assert Path("old/plan.json").read_bytes() != before["plan.json"]
