"""How fast a tuning goes and how much memory it takes: words and images per second of CPU time, peak beside model.

Each configuration runs in a process of its own, so that the peak is its own. Times are CPU seconds of all threads,
which other work on the machine disturbs less than seconds of a clock; those of the clock stand beside them with the
load. Words are those of the text alone; the tokens of the image stand before them in every conversation.

    python benchmarks/quality_speed.py --threads 1
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

OUT = Path(__file__).parent / "results" / "quality_speed.csv"
RUNS = (
    {"language": "tiny", "precision": "no", "batch": 16},
    {"language": "tiny", "precision": "no", "batch": 16, "crops": 2},
    {"language": "smollm2", "precision": "no", "batch": 8},
    {"language": "smollm2", "precision": "bf16", "batch": 8},
    {"language": "smollm2", "precision": "no", "batch": 8, "lora": 0},
)
HEAD = ["language", "precision", "batch", "crops", "lora", "threads", "steps", "image_tokens", "weights", "trained"]
HEAD += ["words_per_cpu_s", "images_per_cpu_s", "words_per_s", "images_per_s", "peak_mb", "modelled_mb", "load"]


def main() -> None:
    """Run what is missing; with ``--one`` a single configuration, whose row is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="of each; 100 for tiny and 12 for others by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--language", default="", help="of this language model alone")
    parser.add_argument("--one", default="", help="settings of one configuration as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(json.loads(given.one), given.threads, given.steps)))
        return
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in HEAD[:6]) for row in csv.DictReader(file)}
    for run in (run for run in RUNS if given.language in ("", run["language"])):
        chosen = {"crops": 0, "lora": 0 if run["language"] == "tiny" else 16, **run}
        key = tuple(str(chosen.get(name, given.threads)) for name in HEAD[:6])
        if key in done:
            continue
        command = [sys.executable, __file__, "--threads", str(given.threads), "--steps", str(given.steps)]
        told = subprocess.run([*command, "--one", json.dumps(chosen)], capture_output=True, text=True, check=False)
        if told.returncode:
            print(key, told.stderr.strip().splitlines()[-1:])
            continue
        row = json.loads(told.stdout.splitlines()[-1])
        fresh = not OUT.exists()
        with OUT.open("a", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerows([HEAD] if fresh else [])
            table.writerow([row[name] for name in HEAD])
        print(row, flush=True)


def measure(chosen: dict[str, Any], threads: int, steps: int) -> dict[str, Any]:
    """One configuration: some steps to begin with, so that encoders have seen the images, then those that count."""
    import torch

    from fewer.data.photos import real_photos
    from fewer.study.simulated import make_raters, simulate
    from fewer.tasks.quality.convert.build import convert
    from fewer.tasks.quality.settings import TuneSettings
    from fewer.tasks.quality.simulator import simulate_images
    from fewer.tasks.quality.tuning import tune

    torch.set_num_threads(threads)
    steps = steps or (100 if chosen["language"] == "tiny" else 12)
    with tempfile.TemporaryDirectory() as place:
        data = simulate_images([photo.path for photo in real_photos()][:12], place, 48, seed=0)
        texts = simulate(data.truths, make_raters(4), 2)
        records = convert(texts, kinds=("what-how", "yes-no"), choices=False).records
        settings = TuneSettings(**chosen, steps=3 if chosen["language"] != "tiny" else 30, images=place)
        start = tune(records, settings=settings)
        began = process_time()
        done = tune(records, settings=settings.model_copy(update={"steps": steps}), start=start)
        cpu = process_time() - began
    facts: Any = done.facts
    share = facts["seconds"] / cpu
    return {
        **{key: chosen[key] for key in ("language", "precision", "batch", "crops", "lora")},
        "threads": threads,
        "steps": steps,
        "image_tokens": done.model.image_tokens,
        "weights": facts["parameters"],
        "trained": facts["trained"],
        "words_per_cpu_s": round(facts["tokens_per_second"] * share, 1),
        "images_per_cpu_s": round(facts["images_per_second"] * share, 2),
        "words_per_s": round(facts["tokens_per_second"], 1),
        "images_per_s": round(facts["images_per_second"], 2),
        "peak_mb": round(facts["memory_peak"] / 1e6),
        "modelled_mb": round(facts["memory_modelled"]["total"] / 1e6),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
