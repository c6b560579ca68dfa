"""Which module over time reads most out of the same features of frames; on simulated walkers.

One GaitBase is trained together with many modules: each has its own pooling, linear map and loss, and all of them share
the layers that see frames. So they are compared on the very same features, at the price of one training. Features of
frames do not know of each other, so that changed probes (shuffled, cut, with lost frames, at another rate) are made of
the features. ``benchmarks/gait.py`` trains variants one by one.

A row is one module on one set with one seed; sets that are there are not trained again.

    python benchmarks/gait_modules.py --work /tmp/gait --motion walkers.npz
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gait import SETS, VARIANTS, Held, dataset
from torch import Tensor, nn

from fewer.core.stamp import environment
from fewer.tasks.gait.losses import class_loss, triplet_loss
from fewer.tasks.gait.networks import GaitNetwork, NetworkConfig, build_network
from fewer.tasks.gait.networks.parts import SeparateFCs, SeparateNecks
from fewer.tasks.gait.protocols import Walks, protocol_for
from fewer.tasks.gait.sampling import PersonSampler
from fewer.tasks.gait.simulator.guards import shape_embedding
from fewer.tasks.gait.tpa import TPA
from fewer.tasks.gait.tpa.moments import KINDS as ALL
from fewer.tasks.gait.tpa.moments import Kind, Moments

OUT = Path(__file__).parent / "results" / "gait_modules.csv"
COLUMNS = (
    "set", "module", "seed", "tested", "rank1", "nm", "bg", "cl", "parameters", "people", "test_people", "steps",
    "rate", "channels", "date", "processor",
)  # fmt: skip
PARTS, OUTS = 16, 32
MOMENTS: dict[str, tuple[Kind, ...]] = {
    "moments": ALL, "mean": ("mean",), "mean and spread": ("mean", "spread"), "phase and moments": ALL,
    "moments and maximum": ("maximum", *ALL),
}  # fmt: skip
CONTROLS: dict[str, tuple[Kind, ...]] = {"wider": ("mean", "spread"), "equal parameters": ALL}
"""A linear map of the maximum itself, as large as that of two moments, or of all: layers learn quicker side by side."""
KINDS = ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")


class Head(nn.Module):
    """A module over time, the maximum, and GaitBase's head."""

    def __init__(self, name: str, channels: int, classes: int) -> None:
        super().__init__()
        self.channels = channels
        config = VARIANTS["phase"] if name == "phase and moments" else VARIANTS.get(name)
        self.tpa = None if config is None or name == "moments" else TPA(channels, config)
        self.moments = Moments(channels, PARTS, MOMENTS[name]) if name in MOMENTS else None
        self.wider = Moments(channels, PARTS, CONTROLS[name]) if name in CONTROLS else None
        self.FCs, self.BNNecks = SeparateFCs(PARTS, channels, OUTS), SeparateNecks(PARTS, OUTS, classes)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        lengths = torch.full((len(values),), values.shape[2])
        found = values if self.tpa is None else self.tpa(values, lengths)
        pooled = found.amax(2)
        if self.moments is not None:
            pooled = pooled + self.moments(found, lengths)
        if self.wider is not None:
            pooled = pooled + torch.einsum("npc,pkcd->npd", pooled, self.wider.fc_bin.unflatten(1, (-1, self.channels)))
        embedding = self.FCs(pooled.transpose(1, 2))
        return embedding, self.BNNecks(embedding)[1]


class Shared(nn.Module):
    """Layers for frames, and all heads."""

    def __init__(self, names: list[str], size: str, classes: int) -> None:
        super().__init__()
        self.body = build_network(NetworkConfig(size=size, classes=classes))  # type: ignore[arg-type]
        self.channels = self.body.FCs.fc_bin.shape[1]
        self.heads = nn.ModuleList(Head(name, self.channels, classes) for name in names)

    def features(self, x: Tensor) -> Tensor:
        """(sequences, parts, frames, channels)."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            frames = self.body.trunk(x[:, None], None)[0]
            return GaitNetwork.frame_parts(self.body, frames).float().permute(0, 3, 2, 1)


def changed(name: str, values: Tensor, rng: np.random.Generator) -> Tensor:
    """Features of a probe as they would be of changed frames."""
    frames = values.shape[2]
    places = {
        "as it is": lambda: np.arange(frames),
        "shuffled": lambda: rng.permutation(frames),
        "start later": lambda: np.arange(int(rng.integers(1, frames // 3)), frames),
        "a fifth lost": lambda: np.flatnonzero(rng.random(frames) >= 0.2),
        "a tenth faster": lambda: np.arange(0, frames - 1, 1.1).round().astype(int),
        "half the rate": lambda: np.arange(0, frames, 2),
        "twice the rate": lambda: np.repeat(np.arange(frames), 2),
    }[name]()
    return values[:, :, torch.from_numpy(places)]


TESTS = ("as it is", "shuffled", "start later", "a fifth lost", "a tenth faster", "half the rate", "twice the rate")


def scores(walks: list[Any], embeddings: np.ndarray) -> dict[str, float]:
    found = Walks(walks, embeddings)
    numbers = protocol_for(found)(found).numbers
    return {"rank1": numbers["rank-1"], **{k.lower(): numbers[k] for k in ("NM", "BG", "CL")}}


def train(model: Shared, data: Held, args: argparse.Namespace, seed: int) -> None:
    walks = data.part("train")
    sequences = [np.ascontiguousarray(data.frames(walk)[:, :, 10:54]) for walk in walks]
    sampler = PersonSampler(
        walks, sequences, people=args.batch // 2, each=2, frames=args.clip, skip=args.skip, seed=seed
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=5e-4)
    shape = lambda s: min(1, (s + 1) / (0.1 * args.steps)) * 0.5 * (1 + np.cos(np.pi * s / args.steps))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shape)
    model.train()
    for step in range(args.steps):
        x, labels = sampler.batch(step)
        values, losses = model.features(x), []
        for head in model.heads:
            embedding, cosines = head(values)
            losses.append(triplet_loss(embedding, labels)[0] + class_loss(cosines, labels))
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        # each head's share of the gradient of the common layers is that of a training of its own
        for parameter in model.body.parameters():
            if parameter.grad is not None:
                parameter.grad /= len(losses)
        for module in (model.body, *model.heads):
            nn.utils.clip_grad_norm_(module.parameters(), 12.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(step + 1, [round(v.item(), 2) for v in losses], round(time.process_time(), 1), flush=True)
    model.eval()


def judge(model: Shared, data: Held, names: list[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Scores of every module, and of the main ones on changed probes; the gallery stays, but for the shuffle."""
    walks = data.part("test")
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    with torch.no_grad():
        for start in range(0, len(walks), 8):
            some = walks[start : start + 8]
            x = torch.from_numpy(np.stack([data.frames(w)[:, :, 10:54] for w in some])).float() / 255
            values = model.features(x)
            for tested in TESTS:
                rng = np.random.default_rng([7, start])
                other = changed(tested, values, rng)
                for name, head in zip(names, model.heads, strict=True):
                    if tested in ("as it is", "shuffled") or name in ("off", "phase", "moments"):
                        found.setdefault((name, tested), []).append(head(other)[0].numpy())
    known = np.array([w.condition == "nm" and int(w.kind[-2:]) <= 4 for w in walks])
    results = {}
    for (name, tested), parts in found.items():
        values = np.concatenate(parts)
        if tested not in ("as it is", "shuffled"):
            values = np.where(known[:, None, None], np.concatenate(found[name, "as it is"]), values)
        results[name, tested] = scores(walks, values)
    return results


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated sets")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--motion", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sets", nargs="+", default=["motion only", "casia-like"], choices=list(SETS))
    parser.add_argument("--modules", nargs="+", default=list({**VARIANTS, **CONTROLS, **MOMENTS}))
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
    args.views, args.kinds = ("036", "072", "108", "144"), KINDS
    stamp = {"processor": environment().get("cpu", ""), "date": time.strftime("%Y-%m-%d")}
    done = set()
    if args.out.exists():
        with args.out.open(newline="") as file:
            done = {(row["set"], row["seed"], row["steps"], row["rate"]) for row in csv.DictReader(file)}
    for seed in args.seeds:
        for name in args.sets:
            if (name, str(seed), str(args.steps), str(args.rate)) not in done:
                one(args, name, seed, stamp)


def one(args: argparse.Namespace, name: str, seed: int, stamp: dict[str, str]) -> None:
    """Train and judge all modules on one set with one seed, and add the rows."""
    data = dataset(args, name)
    torch.manual_seed(seed)
    model = Shared(args.modules, args.size, args.people - args.test)
    train(model, data, args, seed)
    torch.save(model.state_dict(), args.work / f"modules-{name.replace(' ', '-')}-{seed}.pt")
    common = {
        "set": name, "seed": seed, "people": args.people, "test_people": args.test, "steps": args.steps,
        "rate": args.rate, "channels": model.channels, **stamp,
    }  # fmt: skip
    walks = data.part("test")
    shape = scores(walks, np.stack([shape_embedding(data.frames(walk)) for walk in walks]))
    rows = [{**common, "module": "energy image", "tested": "as it is", "parameters": 0, **shape}]
    for (module, tested), numbers in judge(model, data, args.modules).items():
        head: Any = model.heads[args.modules.index(module)]
        count = sum(p.numel() for p in head.parameters())
        rows.append({**common, "module": module, "tested": tested, "parameters": count, **numbers})
    new = not args.out.exists()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if new:
            table.writeheader()
        for row in rows:
            table.writerow({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    for row in rows:
        print(name, seed, row["module"], row["tested"], round(row["rank1"], 2), round(row["cl"], 2), flush=True)


if __name__ == "__main__":
    main()
