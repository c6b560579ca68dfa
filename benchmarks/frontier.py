"""Quality against measured latency: ours, parts of ours, and rivals on the runtimes that their users would take.

DINOv2 ViT-S/14 and MobileNetV2, real photos, batch 1, no training. Ours: pattern x sparsity x precision from times
measured here, planned as ``fewer compress`` does it (the exact DP, or what a contest of plans finds better; the column
``plan`` tells), at several latency budgets, also with merged tokens; beside it pruning only (fp32), precision only
(dense layers) and uniform blocks, all from the same curves and on the same kernels. Rivals: OpenVINO fp32, bf16 and
int8 (NNCF), onnxruntime fp32 and int8 (dynamic, static), and Torch-Pruning (uniform, global, isomorphic) in front of
OpenVINO bf16. ``times_faster`` is over the dense model in torch eager and ``times_int8`` over OpenVINO int8, all three
timed in turns; ``predicted`` is a share of the dense time. Quality on held-out photos with the very callable that
is timed; ``mnist`` is the accuracy of a linear probe on its features. ``lpvit`` is the paper's method (blocks, a
Taylor estimate of distortion, a FLOPs budget with its power term, no repair) on our kernels; its point is the share of
FLOPs. ``..., recovered`` has been trained for ``--recover`` minutes; half of the held-out files chose its best state,
so its quality is only given for the other half (``half_distortion``, ``half_quality``), as that of every row is beside
the one on all files. ``half_before`` is the error of the very same plan before it was trained: the row without recovery
may hold another plan, as tokens are timed again for each.

    OMP_NUM_THREADS=1 python benchmarks/frontier.py    # results/frontier.csv, goes on where it stopped
    python benchmarks/frontier.py --models fewer/mobilenet-v2 --seeds 0
    python benchmarks/frontier.py --plot               # only the picture
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from probes import probe
from rival_runtimes import onnxruntime, openvino, torch_pruned
from tables import Table
from torch import nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost.stopwatch import Stopwatch
from fewer.data.photos import real_photos
from fewer.distillation.blocks import find_blocks
from fewer.distillation.recover import RecoverySettings, TeacherStudent, has_fast_bf16, train_student
from fewer.distortion.outputs import Reference
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.contest import Made, contest, final
from fewer.engine.deploy import deploy
from fewer.engine.judge import Judge
from fewer.engine.plan import choose, part_of
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.refit import refit
from fewer.engine.rivals import rival_model
from fewer.engine.sense import Sensed, resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.tokens import choose_tokens, mergeable
from fewer.engine.views import views_of
from fewer.engine.work import Work
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.models.running import call, evaluating
from fewer.models.spec import load_model
from fewer.quantize.activations import rounding_inputs_of
from fewer.reports import environment
from fewer.training.constrained import Held
from fewer.training.history import Fit

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "model", "seed", "method", "point", "runtime", "times_faster", "times_int8", "ms", "predicted", "distortion",
    "predicted_distortion", "plan", "quality_name", "quality", "half_distortion", "half_quality", "mnist",
    "half_before",
)  # fmt: skip
POINTS = {
    "fewer/dinov2-small": {
        "ours with tokens": (0.2, 0.175, 0.22),
        "ours with tokens, recovered": (0.15, 0.175),
        "ours": (0.2, 0.25),
        "ours, pruning only": (0.4, 0.55),
        "ours, precision only": (0.3, 0.25),
        "uniform blocks": (0.4, 0.55),
    },
    "fewer/mobilenet-v2": {
        "ours": (0.22, 0.21, 0.205, 0.2),
        "ours, recovered": (0.205,),
        "ours, pruning only": (0.3,),
        "ours, precision only": (0.28, 0.23),
        "uniform blocks": (0.3,),
    },
}
# with 512 bits in every unit (Zen 5) the kernels gain and torch eager does not
POINTS_WIDE = {
    "fewer/dinov2-small": {
        "ours with tokens": (0.14, 0.122, 0.105, 0.09),
        "ours with tokens, recovered": (0.105,),
        "ours": (0.122,),
        "ours, pruning only": (0.45,),
        "ours, precision only": (0.16,),
        "uniform blocks": (0.45,),
    },
    "fewer/mobilenet-v2": {
        "ours": (0.22, 0.2, 0.185, 0.17),
        "ours, recovered": (0.17,),
        "ours, pruning only": (0.28,),
        "ours, precision only": (0.22,),
        "uniform blocks": (0.28,),
    },
}
# where no instruction multiplies bytes into 32 bits, the same shares of time are of other qualities
POINTS_AVX2 = {
    "fewer/dinov2-small": {
        "ours with tokens": (0.5, 0.45, 0.38),
        "ours with tokens, recovered": (0.38,),
        "ours": (0.5,),
        "ours, pruning only": (0.4, 0.55),
        "ours, precision only": (0.5,),
        "uniform blocks": (0.4, 0.55),
    },
    "fewer/mobilenet-v2": {
        "ours": (0.28, 0.25, 0.235, 0.22),
        "ours, recovered": (0.25, 0.235),
        "ours, pruning only": (0.3,),
        "ours, precision only": (0.28,),
        "uniform blocks": (0.3,),
    },
}
BUDGETS = (0.3, 0.25, 0.2)
FIT_VIEWS = 400
IN_A_ROW = 4
LPVIT = (0.7, 0.5)
Keep = Callable[[Option], bool]
OURS: dict[str, tuple[str, Keep]] = {
    "ours with tokens": ("auto", lambda o: True),
    "ours with tokens, recovered": ("dp", lambda o: True),
    "ours": ("auto", lambda o: True),
    "ours, recovered": ("dp", lambda o: True),
    "ours, pruning only": ("auto", lambda o: o.precision == "fp32"),
    "ours, precision only": ("dp", lambda o: o.is_dense),
    "uniform blocks": ("uniform", lambda o: o.precision == "fp32"),
}
CUTS = (0.3, 0.5)


@dataclass(frozen=True, eq=False)
class Clock:
    """Times a model in turns with the dense one in torch eager, with OpenVINO's int8 and with a reference product.

    How fast a model is next to another one is told by times of the same seconds: what the host does to memory slows
    all of them, and not alike.
    """

    dense: nn.Module
    int8: nn.Module
    example: torch.Tensor

    def of(self, fast: nn.Module) -> dict[str, float]:
        """How many times faster than dense and than OpenVINO's int8, and milliseconds at the machine's best."""
        with evaluating(self.dense), torch.no_grad():
            watch, x = Stopwatch(), self.example
            models = {"dense": self.dense, "int8": self.int8, "fast": fast}
            runs = {name: partial(several, model, x) for name, model in models.items()}
            found = watch.time(runs, budget_ms=1200.0, rounds=15)
        dense, int8, ours = (found[name].ratio / IN_A_ROW for name in models)
        return {"times_faster": dense / ours, "times_int8": int8 / ours, "ms": ours * watch.reference_ms}


def several(run: Callable[[torch.Tensor], object], x: torch.Tensor) -> None:
    """Some calls in a row, as a model in use is called: the first one finds the caches as another model left them."""
    for _ in range(IN_A_ROW):
        run(x)


def finish(
    table: Table,
    row: dict,
    prepared: Prepared,
    judge: Judge,
    clock: Clock,
    fast: nn.Module,
    probes: int,
    before: float | None = None,
) -> None:
    """Judge and time a model and write its row; ``before`` is the error on the judging half of one that was trained."""
    times, trained = clock.of(fast), before is not None
    quality, half = judge.judge_parts(fast, slice(None), judging_half(prepared))
    mnist = ""
    if probes and quality.name == "feature cosine":
        mnist = probe(fast, "mnist", probes, prepared)[1]
    found = row | {
        **times,
        "distortion": "" if trained else quality.distortion,
        "quality_name": quality.name,
        "quality": "" if trained else quality.value,
        "half_distortion": half.distortion,
        "half_quality": half.value,
        "mnist": mnist,
        "half_before": "" if before is None else before,
    }
    table.add({k: f"{v:.5g}" if isinstance(v, float) and k != "point" else v for k, v in found.items()})


def judging_half(prepared: Prepared) -> torch.Tensor:
    """Which held-out images are of the files that never choose a state of a training."""
    files = list(dict.fromkeys(prepared.heldout.files))
    return torch.tensor([files.index(file) % 2 == 1 for file in prepared.heldout.files])


def ours(
    table: Table, prepared: Prepared, settings: Settings, judge: Judge, clock: Clock, args: argparse.Namespace
) -> None:
    name = prepared.loaded.name
    points = points_here().get(name, {})
    mine = [m for m in args.methods if m in OURS and ("tokens" not in m or mergeable_here(prepared))]
    wanted = [(m, b) for m in mine for b in args.budgets or points.get(m, BUDGETS)]
    row = {"model": name, "seed": settings.seed, "runtime": "fewer"}
    missing = [w for w in wanted if {**row, "method": w[0], "point": w[1]} not in table]
    if not missing:
        return
    with ExitStack() as stack:
        folder = (
            args.work / f"{name.replace('/', '-')}-{settings.seed}-{settings.calibration}"
            if args.work
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        folder.mkdir(parents=True, exist_ok=True)
        sensed = sense_curves(Work(prepared, settings), ledger_path=folder / "ledger.jsonl", store=folder)
        for method, share in missing:
            try:
                point(
                    table,
                    prepared,
                    settings,
                    judge,
                    clock,
                    args,
                    sensed,
                    folder,
                    {**row, "method": method},
                    share,
                )
            except FewerError as error:
                print(f"# {method} at {share}: {error}", flush=True)


def points_here() -> dict[str, dict[str, tuple[float, ...]]]:
    """Shares of the dense time that are of interest on this processor."""
    if "avx512_vnni" not in (environment()["isa"] or ""):
        return POINTS_AVX2
    return POINTS_WIDE if native.available() and native.library().wide_tiles else POINTS


def mergeable_here(prepared: Prepared) -> bool:
    """Whether tokens can be merged."""
    try:
        mergeable(prepared)
    except FewerError:
        return False
    return True


def point(
    table: Table,
    prepared: Prepared,
    settings: Settings,
    judge: Judge,
    clock: Clock,
    args: argparse.Namespace,
    sensed: Sensed,
    store: Path,
    row: dict,
    share: float,
) -> None:
    """Plan for a share of the dense latency, make the model, judge and time it."""
    method = row["method"]
    allocator, keep = OURS[method]
    budgets = [Budget("latency", share, True)]
    if "tokens" in method:
        wanted = settings.model_copy(update={"tokens": True})
        sensed = choose_tokens(Work(prepared, wanted), sensed, budgets, store)
        print("#", *(sensed.curves.meta.get("tokens") or {}).get("tried", []), sep="\n# ", flush=True)
    # the first option, the layer as it came, always stays
    kept = [np.array([i for i, o in enumerate(c.options) if i == 0 or keep(o)]) for c in sensed.curves.curves]
    # stored weights go by their place among all options, so for a part of them another store would be needed
    whole = all(len(k) == len(c) for k, c in zip(kept, sensed.curves.curves, strict=True))
    curves = sensed.curves if whole else part_of(sensed.curves, kept)
    made: dict[bytes, Made] = {}
    if allocator == "auto":
        assembly = Assembly.of(prepared.model, sensed.curves, store, prepared.calibration[:1], None)
        part = replace(sensed, curves=curves, options={c.unit.name: c.options for c in curves.curves})
        allocator, made = compete(prepared, settings, part, assembly, kept, budgets)
    plan = choose(curves, budgets, allocator)
    chosen = {c.unit.name: c.options[k] for c, k in zip(curves.curves, plan.choice, strict=True)}
    ready = made.get(plan.choice.tobytes())
    if ready is not None:
        model, masks = ready.model, ready.masks
    else:
        tokens = curves.meta.get("tokens")
        model, masks = apply_options(Work(prepared, settings), dict(sensed.options), chosen, tokens=tokens)
    dense_ms = curves.dense("latency")
    before = None
    if method.endswith("recovered"):
        untrained = deploy(Work(prepared, settings), deepcopy(model), masks, chosen, plan.cost["latency"], dense_ms)
        before = judge.judge_parts(untrained.model, judging_half(prepared))[0].distortion
        recover(prepared, settings, model, masks, chosen, 60 * args.recover)
    fast = deploy(Work(prepared, settings), model, masks, chosen, plan.cost["latency"], dense_ms)
    found = {
        **row,
        "point": share,
        "predicted": plan.cost["latency"] / dense_ms,
        "predicted_distortion": plan.distortion,
        "plan": allocator,
    }
    finish(table, found, prepared, judge, clock, fast.model, args.probes, before)


def compete(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    assembly: Assembly,
    kept: list[np.ndarray],
    budgets: list[Budget],
) -> tuple[str, dict[bytes, Made]]:
    """What :func:`fewer.engine.contest.decide` and ``final`` do, for curves that hold a part of all options."""
    batches = list(prepared.sensing_images.split(settings.batch))
    with evaluating(prepared.model):
        reference = Reference([call(prepared.model, b, prepared.forward) for b in batches])

    def joint(plan: Allocation) -> float:
        places = np.array([k[i] for k, i in zip(kept, plan.choice, strict=True)])
        return assembly.distortion(places, batches, reference)

    winner, rows = contest(sensed.curves, budgets, joint)
    if len(rows) < 2:
        return winner, {}
    winner, made = final(Work(prepared, settings), sensed, budgets, rows)
    print("#", budgets, winner, rows, flush=True)
    return winner, made


def recover(
    prepared: Prepared,
    settings: Settings,
    model: nn.Module,
    masks: dict[str, torch.Tensor],
    chosen: dict[str, Option],
    seconds: float,
) -> None:
    """What ``fewer recover`` does, for so much processor time: least squares on many views, then training."""
    views = views_of(prepared, [p.path for p in real_photos()], settings.seed)
    judge = Judge(prepared.model, views.choosing, task=prepared.loaded.task)
    precisions = {name: option.precision for name, option in chosen.items()}
    rounded: dict[str, list[nn.Module]] = {}
    for name, precision in precisions.items():
        if precision != "fp32":
            rounded.setdefault(precision, []).append(model.get_submodule(name))
    fit, began = Fit(better="lower"), process_time()
    with rounding_inputs_of(rounded):
        fit.note(model, judge.judge(model).distortion)
        refit(prepared, settings, model, masks, precisions, views.draw(0, FIT_VIEWS))
        fit.seconds = process_time() - began
        if not fit.note(model, judge.judge(model).distortion):
            fit.load_best(model)
    blocks = find_blocks(prepared.model, list(masks), prepared.calibration[:1])
    held = {n: Held(None if bool(m.all()) else m, precisions[n]) for n, m in masks.items()}
    with torch.enable_grad():
        train_student(
            TeacherStudent(prepared.model, model, held, blocks, judge.reference, rounded),
            RecoverySettings(seconds=seconds, bf16=has_fast_bf16()),
            lambda step: views.draw(step, 4),
            lambda net: judge.judge(net).distortion,
            start=fit,
            clock=process_time,
        )
    print("#", [round(entry["score"], 4) for entry in fit.history], flush=True)


def lpvit(table: Table, prepared: Prepared, seed: int, judge: Judge, clock: Clock, args: argparse.Namespace) -> None:
    row = {"model": prepared.loaded.name, "seed": seed, "method": "lpvit", "runtime": "fewer"}
    missing = [p for p in LPVIT if "lpvit" in args.methods and {**row, "point": p} not in table]
    if not any(isinstance(m, nn.LayerNorm) for m in prepared.model.modules()):
        return
    method = Settings.from_preset("lpvit", calibration=args.calibration, heldout=32, seed=seed, threads=args.threads)
    for share in missing:
        model, masks, _ = rival_model(Work(prepared, method), [Budget("flops", share, True)], None, "lpvit")
        example = prepared.heldout[:1].batch().contiguous()
        fast, _ = accelerate(model, masks, example=example, budget_ms=20.0)
        finish(table, {**row, "point": share}, prepared, judge, clock, fast, args.probes)


def rivals(table: Table, prepared: Prepared, seed: int, judge: Judge, clock: Clock, args: argparse.Namespace) -> None:
    dense, int8 = clock.dense, clock.int8
    images, threads = prepared.calibration[:24].batch().contiguous(), torch.get_num_threads()
    makers: dict[tuple[str, str], tuple[str, Callable[[], nn.Module]]] = {}
    makers["OpenVINO", "int8"] = "openvino", lambda: int8
    for kind in ("fp32", "bf16"):
        makers["OpenVINO", kind] = "openvino", lambda kind=kind: openvino(dense, images, kind, threads)
    for kind in ("fp32", "int8 dynamic", "int8 static"):
        makers["onnxruntime", kind] = "onnxruntime", lambda kind=kind: onnxruntime(dense, images, kind, threads)
    for scope in ("uniform", "global", "isomorphic"):
        for cut in CUTS:
            makers[f"Torch-Pruning {scope}", str(cut)] = (
                "openvino bf16",
                lambda scope=scope, cut=cut: openvino(
                    torch_pruned(dense, images[:1], cut, scope), images, "bf16", threads
                ),
            )
    for (method, point), (runtime, make) in makers.items():
        row = {"model": prepared.loaded.name, "seed": seed, "method": method, "point": point, "runtime": runtime}
        if row in table or not any(method.startswith(m) for m in args.methods):
            continue
        try:
            fast = make()
        except Exception as error:  # a rival that cannot take the network has no row; which and why is printed
            print(f"# {method} {point}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
            continue
        finish(table, row, prepared, judge, clock, fast, args.probes)


def plot(path: Path) -> None:
    """Quality against speed, a panel per network; the mean over seeds."""
    from matplotlib.figure import Figure

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = list(dict.fromkeys(r["model"] for r in rows))
    figure = Figure(figsize=(7 * max(1, len(models)), 5), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        for method in dict.fromkeys(r["method"] for r in rows if r["model"] == model):
            points: dict[str, list[tuple[float, float]]] = {}
            for r in rows:
                # a trained model has chosen by half of the photos, and has no quality on all of them
                if (r["model"], r["method"]) == (model, method) and r["quality"]:
                    points.setdefault(r["point"], []).append((float(r["times_faster"]), float(r["quality"])))
            means = sorted(tuple(np.mean(p, axis=0)) for p in points.values())
            if not means:
                continue
            mine = method in OURS
            axes.plot(
                *zip(*means, strict=True), marker="o" if mine else "s", markersize=4, label=method,
                linestyle="-" if mine else ":", linewidth=2 if method == "ours" else 1,
            )  # fmt: skip
        name = next(r["quality_name"] for r in rows if r["model"] == model)
        axes.set(title=model, xlabel="times faster than torch eager fp32, batch 1", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small", "fewer/mobilenet-v2"])
    parser.add_argument("--methods", nargs="*", default=[*OURS, "lpvit", "OpenVINO", "onnxruntime", "Torch-Pruning"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="*", type=float, help="shares of the dense latency, for all of ours")
    parser.add_argument("--probes", type=int, default=0, help="digits to train and to test a linear probe on; 0 is off")
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--recover", type=float, default=10.0, help="minutes of processor time of a recovery")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder that keeps what was sensed, for rows that are made later")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "frontier.csv")
    args = parser.parse_args()
    if not args.plot:
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        torch.set_grad_enabled(False)
        torch.set_num_threads(args.threads)
        table = Table(args.out, COLUMNS, 4)
        stamp = json.dumps(environment(threads=args.threads), indent=1)
        args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
        for seed in args.seeds:
            for name in args.models:
                settings = Settings(
                    calibration=args.calibration, heldout=32, seed=seed, threads=args.threads
                ).for_metrics(["latency"])
                prepared = prepare(name, [p.path for p in real_photos()], settings)
                settings = resolved(prepared, settings)
                judge = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task)
                # as it came: what is prepared for int8 here has been smoothed
                dense, images = load_model(name).model.eval(), prepared.calibration[:24].batch().contiguous()
                int8 = openvino(dense, images, "int8", args.threads)
                clock = Clock(dense, int8, prepared.heldout[:1].batch().contiguous())
                rivals(table, prepared, seed, judge, clock, args)
                ours(table, prepared, settings, judge, clock, args)
                lpvit(table, prepared, seed, judge, clock, args)
    plot(args.out)


if __name__ == "__main__":
    main()
