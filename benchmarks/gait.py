"""Temporal Periodic Alignment on simulated walkers: with and without it, its variants, and controls.

Everything is simulated: the walkers, and so every score. Sets are in the form of CASIA-B; persons that judge did not
train. A row is one training of one variant on one set with one seed; rows that are there are not made again, so that
it may be stopped at any time. ``--speed`` compares each network with and without the module and belongs on a quiet
machine.

    python benchmarks/gait.py --work /tmp/gait                                   # everything, hours
    python benchmarks/gait.py --work /tmp/gait --small                           # what a core does in an hour
    python benchmarks/gait.py --work /tmp/gait --period --motion walkers.npz     # error of the detected period
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.core.stamp import environment
from fewer.cost.stopwatch import Stopwatch
from fewer.models.spec import load_model
from fewer.runtimes.export import to_onnx
from fewer.runtimes.folder import read_record
from fewer.runtimes.session import open_session
from fewer.tasks.gait.data import GaitData, open_data
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.networks import GaitNetwork, NetworkConfig, build_network
from fewer.tasks.gait.networks.network import leg_width, without_line
from fewer.tasks.gait.protocols import Walks, protocol_for
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.simulator import VIEWS, Walkers, casia_kinds
from fewer.tasks.gait.simulator.guards import shape_embedding
from fewer.tasks.gait.simulator.noise import lose_frames, segmented
from fewer.tasks.gait.tpa import CHOICES, TPAConfig
from fewer.tasks.gait.tpa.spectrum import find_rhythm
from fewer.tasks.gait.training import plan_training, train_planned

RESULTS = Path(__file__).parent / "results"
KEY = ("set", "network", "size", "variant", "seed", "people", "test_people", "views", "frames", "steps", "tested")
COLUMNS = (*KEY, "parameters", "rank1", "nm", "bg", "cl", "seconds", "threads", "processor", "date")
PLAIN = TPAConfig(encoding="none", aggregate=False)
VARIANTS: dict[str, TPAConfig | None] = {
    "off": None,
    "moments": CHOICES["moments"],
    "phase": TPAConfig(encoding="phase"),
    "none": TPAConfig(encoding="none"),
    "sinusoid": TPAConfig(encoding="sinusoid"),
    "fourier": TPAConfig(encoding="fourier"),
    "fundamental": TPAConfig(encoding="fundamental"),
    "phase, encoding only": TPAConfig(encoding="phase", aggregate=False),
    "phase, no trend": TPAConfig(encoding="phase", trend=False),
    "phase, no correlation": TPAConfig(encoding="phase", correlate=False),
    "mixing only": TPAConfig(encoding="none", trend=False, correlate=False),
    "equal parameters": PLAIN.model_copy(update={"moments": ("maximum",) * 5}),
}
"""Two controls see no time: ``mixing only`` has the layers of the module but sees one frame at a time, and ``equal
parameters`` has those of ``moments``, five linear maps of the maximum."""
SETS = {"casia-like": {}, "motion only": {"bodies": "one"}}


class Held(GaitData):
    """A set in memory, eight pixels a byte; its probes may be changed when they are read."""

    bits: Any = None
    change: Any = None

    def frames(self, walk: Any) -> np.ndarray:
        found = 255 * np.unpackbits(self.bits[walk], axis=2)
        gallery = walk.condition == "nm" and int(walk.kind[-2:]) <= 4
        rng = np.random.default_rng([7, *str(walk).encode()])
        return found if gallery or self.change is None else self.change(found, rng)

    def changed(self, change: Any) -> Held:
        """The same set with other probes."""
        return held(self, self.bits, change)


def held(data: GaitData, bits: Any, change: Any = None) -> Held:
    found = Held(data.root, data.places, data.partition)
    object.__setattr__(found, "bits", bits)
    object.__setattr__(found, "change", change)
    return found


def dataset(args: argparse.Namespace, name: str) -> Held:
    """A simulated set, written once; simulated silhouettes are black and white, so that bits hold them."""
    own = "mocap" if args.motion else "model"
    place = args.work / f"{name.replace(' ', '-')}-{own}-{args.people}-{len(args.views)}-{args.frames}"
    if not (place / "partition.json").exists():
        walkers = Walkers(seed=0, motion=args.motion, **SETS[name])
        walkers.write(
            place, args.people, train=args.people - args.test, kinds=args.kinds, views=args.views, frames=args.frames
        )
    data, cache = open_data(place), place / "bits.npy"
    if not cache.exists():
        atomic_save(cache, np.stack([np.packbits(data.frames(walk) > 127, axis=2) for walk in data.walks]))
    return held(data, dict(zip(data.walks, np.load(cache), strict=True)))


def atomic_save(path: Path, values: np.ndarray) -> None:
    part = path.with_name("part.npy")
    np.save(part, values)
    part.rename(path)


def _resampled(frames: np.ndarray, factor: float) -> np.ndarray:
    places = np.arange(0, len(frames) - 1, factor).round().astype(int)
    return frames[places]


CHANGES = {
    "start phase": lambda f, rng: f[int(rng.integers(len(f) // 3)) :],
    "a fifth of the frames lost": lambda f, rng: lose_frames(f, rng, 0.2),
    "a tenth faster": lambda f, rng: _resampled(f, 1.1),
    "half the frame rate": lambda f, rng: f[::2],
    "twice the frame rate": lambda f, rng: np.repeat(f, 2, 0),
    "noise twice": lambda f, rng: segmented(f, rng, 1.5),
    "shuffled": lambda f, rng: f[rng.permutation(len(f))],
}
"""What is done to probes at the test; the gallery stays."""


def judge(model: GaitNetwork, data: Held, test: list[Any], change: Any = None) -> dict[str, float]:
    """Scores in percent."""
    found, _ = embed_walks(model, data.changed(change), test)
    numbers = protocol_for(found)(found).numbers
    return {"rank1": numbers["rank-1"], **{k.lower(): numbers.get(k, float("nan")) for k in ("NM", "BG", "CL")}}


def shape_only(data: GaitData, test: list[Any]) -> dict[str, float]:
    """The baseline that knows no motion: energy images."""
    found = Walks(test, np.stack([shape_embedding(data.frames(walk)) for walk in test]))
    numbers = protocol_for(found)(found).numbers
    return {"rank1": numbers["rank-1"], **{k.lower(): numbers.get(k, float("nan")) for k in ("NM", "BG", "CL")}}


def rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Book:
    """A CSV file that grows row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = {tuple(row[k] for k in KEY) for row in rows_of(path)}

    def has(self, row: dict[str, Any]) -> bool:
        return tuple(str(row[k]) for k in KEY) in self.done

    def add(self, row: dict[str, Any]) -> None:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            out = csv.DictWriter(file, COLUMNS)
            if new:
                out.writeheader()
            out.writerow(row)
        self.done.add(tuple(str(row[k]) for k in KEY))
        print(
            {k: row[k] for k in ("set", "network", "variant", "seed", "tested", "rank1", "nm", "bg", "cl", "seconds")}
        )


def train_all(args: argparse.Namespace) -> None:
    """Every variant on every set."""
    book, facts = Book(args.out), environment()
    stamp = {"threads": torch.get_num_threads(), "processor": facts.get("cpu", ""), "date": time.strftime("%Y-%m-%d")}
    for seed in args.seeds:
        for name in args.sets:
            data = dataset(args, name)
            common = {
                "set": name, "size": args.size, "seed": seed, "people": args.people, "test_people": args.test,
                "views": len(args.views), "frames": args.frames, "steps": args.steps,
            }  # fmt: skip
            test = data.part("test")
            row = {**common, "network": "energy image", "variant": "shape only", "tested": "as it is", "parameters": 0}
            if not book.has(row):
                book.add({**row, **rounded(shape_only(data, test)), "seconds": 0, **stamp})
            for network in args.networks:
                for variant in args.variants:
                    row = {**common, "network": network, "variant": variant, "tested": "as it is"}
                    if not book.has(row):
                        one_training(args, data, row, book, stamp)


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in scores.items()}


def one_training(args: argparse.Namespace, data: Held, row: dict[str, Any], book: Book, stamp: dict[str, Any]) -> None:
    """Train once, test as it is and with changed probes."""
    settings = TrainSettings(
        network=row["network"], size=args.size, steps=args.steps, every=args.steps, seed=row["seed"],
        batch=args.batch, each=args.each, frames=args.clip, skip=0, validate_share=0.0, precision=args.precision,
        learning_rate=args.rate,
    )  # fmt: skip
    plan = plan_training(data, settings)
    config = NetworkConfig(
        network=row["network"], size=args.size, classes=len(plan.people), tpa=VARIANTS[row["variant"]]
    )
    began = time.process_time()
    done = train_planned(replace(plan, config=config, test=[]), settings)
    spent = round(time.process_time() - began, 1)
    facts = {"parameters": sum(p.numel() for p in done.model.parameters()), "seconds": spent, **stamp}
    test = data.part("test")
    for tested, change in {**(CHANGES if args.robustness else {"shuffled": CHANGES["shuffled"]})}.items():
        changed = {**row, "tested": tested}
        if not book.has(changed):
            book.add({**changed, **rounded(judge(done.model, data, test, change)), **facts})
    book.add({**row, **rounded(judge(done.model, data, test)), **facts})


def periods(args: argparse.Namespace) -> None:
    """Error of the detected period (a step, or a stride) against the simulated stride."""
    out = args.out.with_name("gait_period.csv")
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["frames_a_second", "view", "frames", "noise", "walks", "median_error_percent", "share_within_10_percent"]
        )
        for rate, view, frames, noise in itertools.product((25, 12.5), ("000", "036", "090"), (30, 60, 100), (1, 2)):
            walkers, errors = Walkers(seed=9, motion=args.motion, noise=noise, rate=rate), []
            for person in range(20):
                seen = walkers.sequence(person, "nm-01", view, frames)
                x = torch.from_numpy(seen.frames[:, :, 10:54]).float()[None] / 255
                found = find_rhythm(without_line(leg_width(x)), torch.tensor([frames])).period.item()
                errors.append(100 * min(abs(2 * found - seen.period), abs(found - seen.period)) / seen.period)
            near = float(np.mean(np.array(errors) < 10))
            table.writerow([rate, view, frames, noise, 20, round(float(np.median(errors)), 2), round(near, 2)])


def runners(args: argparse.Namespace, name: str, x: torch.Tensor) -> dict[str, Any]:
    """Everything that embeds a sequence of one network: with modules in torch, plain in other runtimes."""
    made: dict[str, Any] = {}
    for told in ("off", "moments", "phase"):
        config = NetworkConfig(network=name, size=args.size, tpa=CHOICES[told])  # type: ignore[arg-type]
        net = build_network(config).eval()
        made[f"torch, {told}"] = lambda net=net: net(x)
        for runtime in ("onnxruntime", "openvino") if told != "phase" else ():
            try:
                session = open_session(runtime, to_onnx(net, x).SerializeToString(), torch.get_num_threads())
            except FewerError as error:
                print(f"{name}, {told}, {runtime}: {error}")
                continue
            made[f"{runtime}, {told}"] = lambda session=session: session.run([x.numpy()])
    for run in args.planned:  # made by benchmarks/gait_compress.py
        found = load_model(str(run)).model
        if isinstance(found, GaitNetwork) and (found.config.network, found.config.size) == (name, args.size):
            record = read_record(run)
            runtime = record.runtime if record is not None else "native"
            fast = fewer.load(str(run), runtime=runtime)
            told = "moments" if found.config.tpa else "off"
            made[f"planned for {runtime}, {told}"] = lambda fast=fast: fast(x)
    return made


def speed(args: argparse.Namespace) -> None:
    """Embeddings a second in every runtime, all ways of a network in turns; ratios to torch."""
    torch.set_num_threads(args.threads)
    x = torch.rand(1, 30, 64, 44)
    out = args.out.with_name("gait_speed.csv")
    with out.open("w", newline="") as file, torch.no_grad():
        table = csv.writer(file)
        table.writerow(
            ["network", "size", "way", "milliseconds", "embeddings_a_second", "ratio", "load", "threads", "processor"]
        )
        for network in args.networks:
            ways = runners(args, network, x)
            watch = Stopwatch(runtimes=True)
            found = watch.time(ways, budget_ms=1000.0, rounds=args.repeats, warm=True)
            for name, timing in found.items():
                ms, ratio = timing.ratio * watch.reference_ms, timing.ratio / found["torch, off"].ratio
                row = [network, args.size, name, round(ms, 2), round(1e3 / ms, 1), round(ratio, 3)]
                table.writerow([*row, round(os.getloadavg()[0], 1), torch.get_num_threads(), environment().get("cpu")])
                print(*row, flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated sets")
    parser.add_argument("--out", type=Path, default=RESULTS / "gait.csv")
    parser.add_argument("--motion", type=Path, default=None, help="motion capture; else a model of joint angles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=["gaitbase", "gaitset", "gaitgl"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--size", default="small")
    parser.add_argument("--people", type=int, default=70)
    parser.add_argument("--test", type=int, default=30, help="persons that judge")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--clip", type=int, default=30, help="frames of a sequence in a step")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="of the speed")
    parser.add_argument("--planned", nargs="*", type=Path, default=[], help="runs of fewer compress, for the speed")
    parser.add_argument("--small", action="store_true", help="70 persons, four views, tiny networks, short trainings")
    parser.add_argument("--robustness", action="store_true", help="test with changed probes too")
    parser.add_argument("--period", action="store_true", help="only the error of the period")
    parser.add_argument("--speed", action="store_true", help="only the speed")
    args = parser.parse_args()
    args.views, args.kinds = VIEWS, casia_kinds()
    if args.small:
        args.people, args.test, args.frames, args.clip, args.size = 70, 30, 44, 24, "tiny"
        args.views = ("036", "072", "108", "144")
        args.kinds = ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")
        args.batch, args.each, args.precision, args.steps, args.rate = 12, 2, "bf16", min(args.steps, 300), 1e-2
    if args.period:
        periods(args)
    elif args.speed:
        speed(args)
    else:
        train_all(args)


if __name__ == "__main__":
    main()
