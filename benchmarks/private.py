"""Encrypted inference on real networks: encrypted against plaintext results of the same circuit, MB sent, memory.

    python benchmarks/private.py [--network mnist-cnn|usps-cnn] [--budget he=0.5x] [--images 20] [--steps 400] [--timed]

The networks are those of the package ccexam, trained by others on MNIST and USPS; images are MNIST's test digits (drawn
in a seeded order; for the USPS network resized to 16 pixels, which is another distribution than it was trained on).
Activations become squares and maxima become averages; the circuit is then taught the network's own outputs on 6,000
unlabelled training digits. With --budget a cheaper circuit is made. Work that is done is kept in --folder, so that a
run that was stopped goes on. Seconds are written with --timed only: give it on a machine that does nothing else.
Writes benchmarks/results/private.csv, a row for each image, and prints the sums.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from fewer.models.spec import load_model
from fewer.private.client import Query
from fewer.private.keys import load_circuit, save_keys
from fewer.private.server import Service
from fewer.tasks.classify.sets import load_mnist
from fewer.verbs.private import private_compile

RESULTS = Path(__file__).parent / "results" / "private.csv"
COLUMNS = ["network", "budget", "steps", "index", "label", "network_class", "plain_class", "encrypted_class"]
COLUMNS += ["difference", "mb_sent", "peak_mb", "seconds"]


def prepare(name: str, steps: int, budget: str, place: Path) -> tuple[Service, dict]:
    """Circuit and keys, made once."""
    model = load_model(f"fewer/{name}")
    if not (place / "report.json").exists():
        images = load_mnist("train", 6000, preprocess=model.preprocess).images
        report = private_compile(f"fewer/{name}", images, place, steps=steps, budget=budget or None)
        place.mkdir(parents=True, exist_ok=True)
        (place / "report.json").write_text(json.dumps(report, indent=1))
    if not (place / "keys").exists():
        save_keys(place / "keys", load_circuit(place)[1])
    return Service(*load_circuit(place)), json.loads((place / "report.json").read_text())


def rows_of(mine: dict[str, str]) -> list[dict[str, str]]:
    """What was written of one circuit."""
    return [r for r in csv.DictReader(RESULTS.open(newline="")) if mine.items() <= r.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mnist-cnn")
    parser.add_argument("--budget", default="", help="as in: fewer private compile --budget")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("private-benchmark"))
    parser.add_argument("--timed", action="store_true")
    args = parser.parse_args()
    place = args.folder / "-".join([args.network, str(args.steps), *([args.budget] if args.budget else [])])
    service, report = prepare(args.network, args.steps, args.budget, place)
    print(f"{report['levels']} levels, ring {report['ring']}, agreement in the clear {report['agreement']:.4f}")
    model = load_model(f"fewer/{args.network}")
    test = load_mnist("test", 1000, preprocess=model.preprocess)
    plain = np.concatenate([service.circuit.run(part.numpy()) for part in test.images[: args.images].split(4)])
    with torch.no_grad():
        wanted = model.model(test.images).argmax(1).numpy()
    mine = {"network": args.network, "budget": args.budget, "steps": str(args.steps)}
    if not RESULTS.exists():
        RESULTS.write_text(",".join(COLUMNS) + "\n")
    done = {int(row["index"]) for row in rows_of(mine)}
    ask, take = None, {"/sessions": service.open, "/queries": service.query}
    for i in range(args.images):
        if i in done:
            continue
        if ask is None:
            ask = Query(place / "keys", lambda path, body: take[path](body))
            print(f"evaluation keys: {ask.sent / 1e6:.0f} MB once")
        before, start = ask.sent, time.perf_counter()
        scores = ask(test.images[i].numpy())
        seconds = time.perf_counter() - start
        row = [args.network, args.budget, args.steps, i, int(test.labels[i]), int(wanted[i]), int(plain[i].argmax())]
        row += [int(scores.argmax()), f"{np.abs(scores - plain[i]).max():.3g}", f"{(ask.sent - before) / 1e6:.2f}"]
        row += [
            round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            f"{seconds:.2f}" if args.timed else "",
        ]
        with RESULTS.open("a", newline="") as handle:
            csv.writer(handle).writerow(row)
    rows = rows_of(mine)
    same = sum(r["encrypted_class"] == r["plain_class"] for r in rows)
    right = sum(r["encrypted_class"] == r["label"] for r in rows)
    worst = max(float(r["difference"]) for r in rows)
    print(f"{len(rows)} images: encrypted = plaintext on {same}, right on {right}, largest difference {worst:.3g}")
    clear = (plain.argmax(1) == test.labels[: args.images].numpy()).mean()
    network = (wanted == test.labels.numpy()).mean()
    print(f"in the clear: circuit right on {clear:.1%} of these, network on {network:.1%} of 1,000")


if __name__ == "__main__":
    main()
