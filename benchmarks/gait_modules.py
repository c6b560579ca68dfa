"""Which module over time reads most out of the same features of frames; on simulated walkers.

One network is trained together with many modules: each has its own pooling, head and loss, and all of them share the
layers before. So they are compared on the very same features, at the price of one training. A head's share of the
gradient of the common layers is that of a training of its own. ``benchmarks/gait.py`` trains variants one by one.

A row is one module in one network on one set with one seed; what is there is not made again, so that it may be stopped
at any time. ``gait_networks_detail.csv`` beside it has rank-1 by probe view and by person, of the main modules.

    python benchmarks/gait_modules.py --work /tmp/gait --motion walkers.npz
    python benchmarks/gait_modules.py --summary                     # gains with intervals, and a plot; trains nothing
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gait import CHANGES, PLAIN, SETS, VARIANTS, Held, dataset
from torch import Tensor, nn

from fewer.core.files import atomic_write_text
from fewer.core.stamp import environment
from fewer.tasks.gait.losses import class_loss, triplet_loss
from fewer.tasks.gait.networks import NetworkConfig, build_network
from fewer.tasks.gait.networks.gaitset import GaitSet
from fewer.tasks.gait.networks.parts import max_over_time
from fewer.tasks.gait.protocols import Walks, protocol_for
from fewer.tasks.gait.protocols.distance import nearest
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.sampling import PersonSampler
from fewer.tasks.gait.simulator.guards import shape_embedding
from fewer.tasks.gait.tpa import TPAConfig
from fewer.tasks.gait.tpa.moments import KINDS as ALL

OUT = Path(__file__).parent / "results" / "gait_networks.csv"
COLUMNS = (
    "network", "set", "module", "seed", "tested", "rank1", "nm", "bg", "cl", "parameters", "people", "test_people",
    "steps", "rate", "size", "date", "processor",
)  # fmt: skip
DETAIL = ("network", "set", "module", "seed", "steps", "rate", "condition", "by_view", "by_person")
MODULES: dict[str, TPAConfig | None] = {
    **VARIANTS,
    "strips of frames": PLAIN,
    "phase and moments": TPAConfig(encoding="phase", moments=ALL),
    "mean and spread": PLAIN.model_copy(update={"moments": ("mean", "spread")}),
    "moments and maximum": PLAIN.model_copy(update={"moments": ("maximum", *ALL)}),
}
"""``strips of frames`` is the order in which modules pool, without a module."""
MAIN = ("off", "phase", "moments", "equal parameters")
"""Modules that are looked at more closely: with changed probes, and by view and person."""
KINDS = ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")
VIEWS = ("036", "072", "108", "144")
HEADS = ("FCs", "BNNecks", "Head", "Head0", "Bn", "Head1", "tpa")


class Shared(nn.Module):
    """Networks that differ in the module and have one trunk."""

    def __init__(self, names: Sequence[str], network: str, size: str, classes: int) -> None:
        super().__init__()
        configs = [{"network": network, "size": size, "classes": classes, "tpa": MODULES[name]} for name in names]
        self.networks = nn.ModuleList(build_network(NetworkConfig(**config)) for config in configs)  # type: ignore[arg-type]
        self.body: Any = self.networks[0]
        common = [(name, part) for name, part in self.body.named_children() if name not in HEADS]
        for other in self.networks[1:]:
            for name, part in common:
                setattr(other, name, part)
        self.trunk = {id(p): p for _, part in common for p in part.parameters()}

    def heads(self, net: nn.Module) -> list[nn.Parameter]:
        """Parameters that a network has for itself."""
        return [p for p in net.parameters() if id(p) not in self.trunk]

    def forward(self, x: Tensor, chosen: Sequence[int] | None = None) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """What the head of each network gives, or of those that are chosen."""
        static = None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if isinstance(self.body, GaitSet):
                frames, whole = self.body.branches(x[:, None], None)
                static = self.body.strips(whole).float()
            else:
                frames, _ = self.body.trunk(x[:, None], None)
        frames = frames.float()
        parts, found = self.body.frame_parts(frames), []
        for index in range(len(self.networks)) if chosen is None else chosen:
            net: Any = self.networks[index]
            pooled = net.pool(frames, None) if net.tpa is None else net.align(parts, None, max_over_time)
            found.append(net.head(pooled if static is None else torch.cat([pooled, static], 2)))
        return found


def train(model: Shared, data: Held, args: argparse.Namespace, network: str, seed: int) -> None:
    walks = data.part("train")
    sequences = [np.ascontiguousarray(data.frames(walk)[:, :, 10:54]) for walk in walks]
    sampler = PersonSampler(
        walks, sequences, people=args.batch // 2, each=2, frames=args.clip, skip=args.skip, seed=seed
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=5e-4)
    shape = lambda s: min(1, (s + 1) / (0.1 * args.steps)) * 0.5 * (1 + np.cos(np.pi * s / args.steps))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shape)
    trunk, scale = list(model.trunk.values()), 1.0 if network == "gaitgl" else 16.0
    model.train()
    for step in range(args.steps):
        x, labels = sampler.batch(step)
        losses = []
        for _, embedding, classes in model(x):
            loss = triplet_loss(embedding, labels)[0]
            losses.append(loss if classes is None else loss + class_loss(classes, labels, scale))
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        # each head's share of the gradient of the common layers is that of a training of its own
        for parameter in trunk:
            if parameter.grad is not None:
                parameter.grad /= len(losses)
        for group in (trunk, *(model.heads(net) for net in model.networks)):
            nn.utils.clip_grad_norm_(group, 12.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(step + 1, [round(v.item(), 2) for v in losses], round(time.process_time(), 1), flush=True)
    model.eval()


def is_gallery(walk: Walk) -> bool:
    return walk.condition == "nm" and int(walk.kind[-2:]) <= 4


def embed(model: Shared, sequences: list[np.ndarray], chosen: Sequence[int]) -> list[np.ndarray]:
    """Embeddings (sequences, channels, parts) of the chosen networks; sequences of one length go through together."""
    found: list[list[Any]] = [[None] * len(sequences) for _ in chosen]
    lengths = np.array([len(some) for some in sequences])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        for start in range(0, len(rows), 8):
            some = rows[start : start + 8]
            x = torch.from_numpy(np.stack([sequences[i][:, :, 10:54] for i in some])).float() / 255
            for k, (embedding, _, _) in enumerate(model(x, chosen)):
                for i, value in zip(some, embedding.numpy(), strict=True):
                    found[k][i] = value
    return [np.stack(some) for some in found]


def judge(model: Shared, data: Held, names: Sequence[str], changes: Sequence[str]) -> dict[tuple[str, str], Walks]:
    """Embeddings by module and test; frames are shuffled everywhere, other changes leave the gallery as it is."""
    walks = data.part("test")
    every, probes = range(len(walks)), [i for i, walk in enumerate(walks) if not is_gallery(walk)]
    with torch.no_grad():
        plain = [data.frames(walk) for walk in walks]
        first = embed(model, plain, range(len(names)))
        result = {(name, "as it is"): Walks(walks, some) for name, some in zip(names, first, strict=True)}
        for tested in changes:
            change = CHANGES[tested]
            everything = tested == "shuffled"
            asked = every if everything else probes
            chosen = [k for k, name in enumerate(names) if everything or name in MAIN]
            rngs = {i: np.random.default_rng([7, *str(walks[i]).encode()]) for i in asked}
            values = embed(model, [np.ascontiguousarray(change(plain[i], rngs[i])) for i in asked], chosen)
            for k, some in zip(chosen, values, strict=True):
                whole = first[k].copy()
                whole[list(asked)] = some
                result[names[k], tested] = Walks(walks, whole)
    return result


def scores(found: Walks) -> dict[str, float]:
    numbers = protocol_for(found)(found).numbers
    return {"rank1": numbers["rank-1"], **{k.lower(): numbers[k] for k in ("NM", "BG", "CL")}}


def details(found: Walks) -> list[dict[str, str]]:
    """Rank-1 by probe view and by person, a row for each condition; the same protocol as the tables."""
    walks, known = found.walks, found.rows(is_gallery)
    probes = found.rows(lambda walk: not is_gallery(walk))
    hits = np.full((len(probes), len(VIEWS)), np.nan)
    for column, view in enumerate(VIEWS):
        there = [i for i in known if walks[i].view == view]
        rows, _ = nearest(found.embeddings[probes], found.embeddings[there])
        for i, row in enumerate(rows[:, 0]):
            probe = walks[probes[i]]
            if probe.view != view:
                hits[i, column] = walks[there[row]].person == probe.person
    right, told = 100 * np.nanmean(hits, 1), []
    for condition in ("nm", "bg", "cl"):
        groups: dict[str, dict[str, list[float]]] = {"view": {}, "person": {}}
        for probe, value in zip(probes, right, strict=True):
            if walks[probe].condition == condition:
                for name, some in groups.items():
                    some.setdefault(getattr(walks[probe], name), []).append(float(value))
        by = {f"by_{name}": " ".join(f"{np.mean(some[k]):.2f}" for k in sorted(some)) for name, some in groups.items()}
        told.append({"condition": condition, **by})
    return told


def rows_in(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_rows(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """All rows of a training at once, so that a stop leaves none of them or all."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows_in(path))
    table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, text.getvalue())


def one(args: argparse.Namespace, network: str, name: str, seed: int, stamp: dict[str, str]) -> None:
    """Train and judge all modules in one network on one set with one seed, and add the rows."""
    data, began = dataset(args, name), time.process_time()
    torch.manual_seed(seed)
    model = Shared(args.modules, network, args.size, args.people - args.test)
    train(model, data, args, network, seed)
    key = {"network": network, "set": name, "seed": seed, "steps": args.steps, "rate": args.rate}
    common = {**key, "people": args.people, "test_people": args.test, "size": args.size, **stamp}
    walks = data.part("test")
    shape = scores(Walks(walks, np.stack([shape_embedding(data.frames(walk)) for walk in walks])))
    rows = [{**common, "module": "energy image", "tested": "as it is", "parameters": 0, **shape}]
    found = judge(model, data, args.modules, list(CHANGES) if args.robustness else ["shuffled"])
    for (module, tested), embedded in found.items():
        count = sum(p.numel() for p in model.heads(model.networks[args.modules.index(module)]))
        rows.append({**common, "module": module, "tested": tested, "parameters": count, **scores(embedded)})
    main = [module for module in args.modules if module in MAIN]
    closer = [{**key, "module": m, **row} for m in main for row in details(found[m, "as it is"])]
    add_rows(args.out.with_name(f"{args.out.stem}_detail.csv"), DETAIL, closer)
    add_rows(args.out, COLUMNS, rows)
    for row in rows:
        print(network, name, seed, row["module"], row["tested"], *(round(row[k], 1) for k in ("rank1", "bg", "cl")))
    print(f"{time.process_time() - began:.0f} s of processor time", flush=True)


def gains(rows: list[dict[str, str]], base: str, draws: int = 2000) -> list[dict[str, Any]]:
    """Gain of each main module over another, mean of the seeds; 95 % of draws of persons and seeds lie in the interval.

    Persons are the same in all seeds, so that they are drawn together for both modules and all seeds.
    """
    table: dict[tuple[str, str, str, str], dict[str, np.ndarray]] = {}
    for row in rows:
        values = np.array([float(v) for v in row["by_person"].split()])
        table.setdefault((row["set"], row["network"], row["module"], row["condition"]), {})[row["seed"]] = values
    rng, told = np.random.default_rng(0), []
    for (name, network, module, condition), seeds in table.items():
        other = table.get((name, network, base, condition), {})
        both = sorted(seeds.keys() & other.keys())
        if module == base or not both:
            continue
        change = np.stack([seeds[s] - other[s] for s in both])
        chosen = rng.integers(len(both), size=(draws, len(both)))
        people = rng.integers(change.shape[1], size=(draws, change.shape[1]))
        means = np.array([change[c][:, p].mean() for c, p in zip(chosen, people, strict=True)])
        low, high = np.percentile(means, (2.5, 97.5))
        told.append(
            {
                "set": name, "network": network, "module": module, "over": base, "condition": condition,
                "seeds": len(both), "gain": round(float(change.mean()), 1), "low": round(float(low), 1),
                "high": round(float(high), 1),
            }
        )  # fmt: skip
    return told


def summary(path: Path) -> None:
    """Gains with intervals as CSV, and a plot of them."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows = rows_in(path.with_name(f"{path.stem}_detail.csv"))
    told = [row for base in ("off", "equal parameters") for row in gains(rows, base)]
    place = path.with_name(f"{path.stem}_gains.csv")
    place.unlink(missing_ok=True)
    add_rows(place, list(told[0]), told)
    groups = sorted({(row["set"], row["network"]) for row in told})
    figure = Figure(figsize=(3.2 * len(groups), 4), layout="constrained")
    for axes, (name, network) in zip(np.atleast_1d(figure.subplots(1, len(groups), sharex=True)), groups, strict=True):
        shown = [r for r in told if (r["set"], r["network"]) == (name, network)]
        places = np.arange(len(shown))
        middle = np.array([r["gain"] for r in shown])
        ends = np.array([[r["gain"] - r["low"] for r in shown], [r["high"] - r["gain"] for r in shown]])
        axes.errorbar(middle, places, xerr=np.maximum(ends, 0), fmt="o", markersize=4)
        axes.set_yticks(
            places, [f"{r['module']} over {r['over']}, {r['condition'].upper()}" for r in shown], fontsize=6
        )
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.invert_yaxis()
        axes.set_title(f"{network}, {name}", fontsize=9)
        axes.set_xlabel("points of rank-1 (simulated)", fontsize=8)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    atomic_write_text(path.with_suffix(".svg"), text.getvalue())
    for row in told:
        print(*row.values(), sep="\t")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder for simulated sets")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--motion", type=Path, default=None, help="motion capture; else a model of joint angles")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--networks", nargs="+", default=["gaitbase", "gaitset", "gaitgl"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=["casia-like", "motion only"], choices=list(SETS))
    parser.add_argument("--modules", nargs="+", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--robustness", action="store_true", help="test main modules with changed probes too")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--people", type=int, default=70)
    parser.add_argument("--test", type=int, default=30)
    parser.add_argument("--frames", type=int, default=44)
    parser.add_argument("--clip", type=int, default=24)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-2)
    args = parser.parse_args()
    if args.summary:
        return summary(args.out)
    if args.work is None:
        parser.error("--work FOLDER is needed for a training")
    torch.set_num_threads(1)
    args.views, args.kinds = VIEWS, KINDS
    stamp = {"processor": environment().get("cpu", ""), "date": time.strftime("%Y-%m-%d")}
    columns = ("network", "set", "seed", "steps", "rate")
    done = {tuple(row[c] for c in columns) for row in rows_in(args.out)}
    for seed in args.seeds:
        for name in args.sets:
            for network in args.networks:
                if (network, name, str(seed), str(args.steps), str(args.rate)) not in done:
                    one(args, network, name, seed, stamp)


if __name__ == "__main__":
    main()
