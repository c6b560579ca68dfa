"""Encrypted inference on real networks: encrypted against plaintext results of the same circuit, MB sent, memory.

    python benchmarks/private.py [--network mnist-cnn|usps-cnn|digits|cifar] [--budget he=0.5x] [--images 20]
    python benchmarks/private.py --network mnist-cnn --budget he=0.5x --steps 800 --train 40000 --clear 10000

mnist-cnn and usps-cnn are those of the package ccexam, trained by others on MNIST and USPS; images are MNIST's test
digits (drawn in a seeded order; for the USPS network resized to 16 pixels, which is another distribution than it was
trained on). digits is the network of ``fewer demo private`` on scikit-learn's digits. cifar is a small network that is
trained here on 12,000 images of CIFAR-10, read from the folder that FEWER_SHARED_DATA names.

Activations become squares and maxima become averages; the circuit is then taught the network's own outputs on
unlabelled training images. With --budget a cheaper circuit is made. Work that is done is kept in --folder, so that a
run that was stopped goes on. ``processor_s`` is the processor time of client and server together, ``server_s`` that of
the server, and ``predicted_s`` what the operations were predicted to take, from a calibration of some seconds.
Writes benchmarks/results/private.csv, a row for each image, and prints the sums. --fresh forgets the rows that were
there of the circuit. --wall 20 takes the time on the clock of so many queries of a circuit that is there already, and
the prediction just before them, and adds a row to private_wall.csv with the load of the machine: for a quiet machine.
--clear makes the whole circuit and the one of the budget anew and compares both in the clear, on so many test images:
a circuit says the same encrypted, and hundreds of images cannot show half a point. Adds a row to private_clear.csv.
--joint plans degrees, diagonals and bits for the budget, and writes what each step does alone to private_joint.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fewer.data.digits import real_digits
from fewer.models.spec import load_model
from fewer.private.adapt import adapt
from fewer.private.cheapen import cheapen
from fewer.private.client import Query
from fewer.private.compile import approximate_activations
from fewer.private.demo_run import train_network
from fewer.private.joint import said_by
from fewer.private.keys import load_circuit, save_keys
from fewer.private.price import calibrate, predict_ms, prices_here
from fewer.private.reading import read_network
from fewer.private.server import Service
from fewer.tasks.classify.sets import load_mnist
from fewer.training.loop import fit
from fewer.training.settings import LoopSettings
from fewer.verbs.private import private_compile

RESULTS = Path(__file__).parent / "results" / "private.csv"
COLUMNS = ["network", "budget", "steps", "index", "label", "network_class", "plain_class", "encrypted_class"]
COLUMNS += ["difference", "mb_sent", "peak_mb", "processor_s", "server_s", "predicted_s"]
WALL = RESULTS.with_name("private_wall.csv")
WALL_COLUMNS = ["network", "budget", "steps", "queries", "wall_s", "wall_low_s", "wall_high_s"]
CLEAR = RESULTS.with_name("private_clear.csv")
CLEAR_COLUMNS = ["network", "budget", "steps", "taught_on", "way", "share_of_time", "images", "right_network"]
CLEAR_COLUMNS += ["right_whole", "right_budget", "points_lost", "low", "high"]
JOINT = RESULTS.with_name("private_joint.csv")
JOINT_COLUMNS = ["network", "budget", "steps", "step", "kind", "ms", "share", "distance", "note"]
WALL_COLUMNS += ["server_wall_s", "server_processor_s", "predicted_s", "load"]


@dataclass(frozen=True)
class Subject:
    """A trained network, images to teach its circuit with, and others with labels."""

    model: Any
    train: Tensor
    test: Tensor
    labels: Tensor


def subject_of(name: str, folder: Path, train_count: int = 6000, test_count: int = 1000) -> Subject:
    """A network by its name; of MNIST so many images to teach with and to test."""
    if name == "digits":
        (images, labels), (held, wanted) = real_digits()
        known, names = torch.from_numpy(images), torch.from_numpy(labels)
        return Subject(train_network(known, names), known, torch.from_numpy(held), torch.from_numpy(wanted))
    if name == "cifar":
        (known, names), (held, wanted) = (cifar(part, count) for part, count in (("train", 12_000), ("test", 1000)))
        return Subject(cifar_network(known, names, folder / "cifar.pt"), known[:6000], held, wanted)
    loaded = load_model(f"fewer/{name}")
    test = load_mnist("test", test_count, preprocess=loaded.preprocess)
    train = load_mnist("train", train_count, preprocess=loaded.preprocess).images
    return Subject(loaded.model, train, test.images, test.labels)


def cifar(part: str, count: int) -> tuple[Tensor, Tensor]:
    """Images of CIFAR-10 as they were saved in JPEG, drawn in a seeded order, and their labels."""
    place = os.environ.get("FEWER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
    z = np.load(Path(place) / "cifar10" / f"{part}.npz")
    raw, offset = z["jpeg"].tobytes(), z["offset"]
    rows = np.random.default_rng(0).permutation(len(z["label"]))[:count]
    pixels = [np.asarray(Image.open(io.BytesIO(raw[offset[i] : offset[i + 1]]))) for i in rows]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return (images - 0.45) / 0.25, torch.from_numpy(z["label"][rows].astype(np.int64))


def cifar_network(images: Tensor, labels: Tensor, file: Path, steps: int = 600) -> nn.Module:
    """Two convolutions and two linear layers, trained for a minute or two."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.SiLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.SiLU(),
        nn.Flatten(), nn.Linear(2048, 64), nn.SiLU(), nn.Linear(64, 10),
    )  # fmt: skip
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()

    def objective(student: nn.Module, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(0, len(images), (128,), generator=draw)
        x = images[rows]
        x = x.flip(-1) if step % 2 else x
        return F.cross_entropy(student(x), labels[rows], label_smoothing=0.1)

    settings = LoopSettings(steps=steps, learning_rate=3e-3, rate_shape="cosine", rate_warm_up=0.05, optimiser="adam")
    fit(model, objective, settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def prepare(subject: Subject, steps: int, budget: str, place: Path) -> tuple[Service, dict]:
    """Circuit and keys, made once."""
    if not (place / "report.json").exists():
        report = private_compile(subject.model, subject.train, place, steps=steps, budget=budget or None, heldout=0)
        place.mkdir(parents=True, exist_ok=True)
        (place / "report.json").write_text(json.dumps(report, indent=1))
    if not (place / "keys").exists():
        save_keys(place / "keys", load_circuit(place)[1])
    return Service(*load_circuit(place)), json.loads((place / "report.json").read_text())


def rows_of(mine: dict[str, str]) -> list[dict[str, str]]:
    """What was written of one circuit."""
    return [r for r in csv.DictReader(RESULTS.open(newline="")) if mine.items() <= r.items()]


def keep_rows(mine: dict[str, str], fresh: bool) -> None:
    """The rows that are there, without those of this circuit where it is measured anew."""
    found = list(csv.DictReader(RESULTS.open(newline=""))) if RESULTS.exists() else []
    kept = [row for row in found if not (fresh and mine.items() <= row.items())]
    with RESULTS.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def time_on_the_clock(service: Service, place: Path, test: Tensor, mine: dict[str, str], count: int) -> None:
    """Seconds that a client waits for an answer, one query after another, and what was predicted just before."""
    spent: list[tuple[float, float]] = []

    def query(body: bytes) -> bytes:
        start, began = time.perf_counter(), time.process_time()
        answer = service.query(body)
        spent.append((time.perf_counter() - start, time.process_time() - began))
        return answer

    take = {"/sessions": service.open, "/queries": query}
    ask = Query(place / "keys", lambda path, body: take[path](body))
    predicted = predict_ms(service.circuit, calibrate(service.public.parameters, seconds=5.0)) / 1e3
    ask(test[0].numpy())
    spent.clear()
    waited = []
    for i in range(count):
        start = time.perf_counter()
        ask(test[i % len(test)].numpy())
        waited.append(time.perf_counter() - start)
    low, middle, high = np.quantile(waited, (0.25, 0.5, 0.75))
    server, processor = np.median(np.array(spent), axis=0)
    times = [f"{v:.3f}" for v in (middle, low, high, server, processor, predicted)]
    row = [*mine.values(), count, *times, f"{os.getloadavg()[0]:.1f}"]
    if not WALL.exists():
        WALL.write_text(",".join(WALL_COLUMNS) + "\n")
    with WALL.open("a", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerow(row)
    print(dict(zip(WALL_COLUMNS, row, strict=True)))


def compare_in_the_clear(subject: Subject, args: argparse.Namespace) -> None:
    """Whole circuit and that of the budget on many images, and how sure their difference is (95 %, pairs of images)."""
    network = approximate_activations(read_network(subject.model, subject.train[:1]), subject.train)
    network = adapt(subject.model, network, subject.train, steps=args.steps)
    cheap = cheapen(subject.model, network, subject.train, args.budget, prices=prices_here(), steps=args.steps)
    with torch.no_grad():
        said = torch.cat([subject.model(part) for part in subject.test.split(500)])
    after = (
        cheap.network(subject.test) if cheap.network else torch.from_numpy(said_by(cheap.circuit, subject.test.numpy()))
    )
    right = [x.argmax(1) == subject.labels for x in (said, network(subject.test), after)]
    count, (lost, won) = len(subject.test), (int((a & ~b).sum()) for a, b in (right[1:], right[:0:-1]))
    gap = (lost - won) / count
    half = 1.96 * ((lost + won) / count - gap**2) ** 0.5 / count**0.5
    shares = [f"{100 * float(x.double().mean()):.2f}" for x in right]
    row = [
        args.network,
        args.budget,
        args.steps,
        len(subject.train),
        cheap.name,
        f"{cheap.after['he'] / cheap.before['he']:.3f}",
    ]
    row += [count, *shares, *(f"{100 * x:.2f}" for x in (gap, gap - half, gap + half))]
    if not CLEAR.exists():
        CLEAR.write_text(",".join(CLEAR_COLUMNS) + "\n")
    with CLEAR.open("a", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerow(row)
    print(dict(zip(CLEAR_COLUMNS, row, strict=True)), [(t.name, t.loss) for t in cheap.tried])


def keep_steps(mine: dict[str, str], report: dict) -> None:
    """What each step of a joint plan does alone, in place of the rows of the same circuit."""
    found = list(csv.DictReader(JOINT.open(newline=""))) if JOINT.exists() else []
    rows = [row for row in found if not mine.items() <= row.items()]
    steps = report["cheaper"]["steps"]
    for step in steps:
        told = {}
        if step["ms"] is not None:
            told = {"ms": f"{step['ms']:.1f}", "share": f"{step['ms'] / steps[0]['ms']:.3f}"}
            told["distance"] = f"{step['distance']:.4g}"
        rows.append({**mine, "step": step["name"], "kind": step["kind"], **told, "note": step["note"]})
        print(*rows[-1].values())
    with JOINT.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, JOINT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mnist-cnn")
    parser.add_argument("--budget", default="", help="as in: fewer private compile --budget")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("private-benchmark"))
    parser.add_argument("--wall", type=int, default=0, help="queries whose time on the clock is taken")
    parser.add_argument("--train", type=int, default=6000, help="images of MNIST to teach with")
    parser.add_argument("--clear", type=int, default=0, help="images on which both circuits are compared in the clear")
    parser.add_argument("--joint", action="store_true", help="plan all steps for the budget, and tell each alone")
    parser.add_argument("--fresh", action="store_true")
    args = parser.parse_args()
    place = args.folder / "-".join([args.network, str(args.steps), *([args.budget] if args.budget else [])])
    subject = subject_of(args.network, args.folder, args.train, args.clear or 1000)
    if args.clear:
        compare_in_the_clear(subject, args)
        return
    if args.joint:
        mine = {"network": args.network, "budget": args.budget, "steps": str(args.steps)}
        place = place.with_name(place.name + "-joint")
        more: dict = {"steps": args.steps, "budget": args.budget, "joint": True, "overwrite": True}
        keep_steps(mine, private_compile(subject.model, subject.train, place, **more))
        return
    service, report = prepare(subject, args.steps, args.budget, place)
    print(f"{report['levels']} levels, ring {report['ring']}, agreement in the clear {report['agreement']:.4f}")
    test, labels = subject.test[: args.images], subject.labels[: args.images]
    plain = np.concatenate([service.circuit.run(part.numpy()) for part in test.split(4)])
    with torch.no_grad():
        wanted = subject.model(subject.test).argmax(1)
    mine = {"network": args.network, "budget": args.budget, "steps": str(args.steps)}
    if args.wall:
        time_on_the_clock(service, place, subject.test, mine, args.wall)
        return
    keep_rows(mine, args.fresh)
    done = {int(row["index"]) for row in rows_of(mine)}
    served = [0.0]

    def query(body: bytes) -> bytes:
        began = time.process_time()
        answer = service.query(body)
        served.append(time.process_time() - began)
        return answer

    ask, take = None, {"/sessions": service.open, "/queries": query}
    predicted = ""
    for i in range(len(test)):
        if i in done:
            continue
        if ask is None:
            ask = Query(place / "keys", lambda path, body: take[path](body))
            print(f"evaluation keys: {ask.sent / 1e6:.0f} MB once")
            prices = calibrate(service.public.parameters, seconds=5.0)
            predicted = f"{predict_ms(service.circuit, prices) / 1e3:.3f}"
        before, began = ask.sent, time.process_time()
        scores = ask(test[i].numpy())
        processor = time.process_time() - began
        row = [args.network, args.budget, args.steps, i, int(labels[i]), int(wanted[i]), int(plain[i].argmax())]
        row += [int(scores.argmax()), f"{np.abs(scores - plain[i]).max():.3g}", f"{(ask.sent - before) / 1e6:.2f}"]
        row += [
            round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            f"{processor:.3f}",
            f"{served[-1]:.3f}",
            predicted,
        ]
        with RESULTS.open("a", newline="") as handle:
            csv.writer(handle).writerow(row)
    rows = rows_of(mine)
    same = sum(r["encrypted_class"] == r["plain_class"] for r in rows)
    right = sum(r["encrypted_class"] == r["label"] for r in rows)
    worst = max(float(r["difference"]) for r in rows)
    print(f"{len(rows)} images: encrypted = plaintext on {same}, right on {right}, largest difference {worst:.3g}")
    clear = float((plain.argmax(1) == labels.numpy()).mean())
    network = float((wanted == subject.labels).double().mean())
    print(f"in the clear: circuit right on {clear:.1%} of these, network on {network:.1%} of {len(wanted):,}")
    spent = [float(r["processor_s"]) for r in rows if r["processor_s"]]
    if spent:
        print(f"processor time of an image, median: {np.median(spent):.2f} s")
        took, told = (np.median([float(r[k]) for r in rows if r[k]]) for k in ("server_s", "predicted_s"))
        print(f"of it on the server: {took:.3f} s, predicted {told:.3f} s ({told / took - 1:+.0%})")


if __name__ == "__main__":
    main()
