"""How much of the lost quality does training without labels win back in a given time?

Each cell cuts every layer alike, repairs it as ``fewer compress`` does with 40 images, and then learns: by default
least squares on many more views (``views``), and then training for what is left of the time. ``blocks`` is the training
without the least squares, ``fit`` the least squares alone, ``end to end`` the simple way: distillation of the output
alone. ``together`` learns from blocks and output from the start, ``alone`` from blocks only. Error is the distortion on
held-out photos that judge; others chose the best state (``chosen_before``, ``chosen_after``: their own error).
``won`` is the share of the error that came back. Rows with ``average`` no
are from before a running mean of the weights was what is examined, and their networks were cut with 40 crops of 20
files, and not of all 30.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/recover.py --work /tmp/recover --time 10min --clock wall

It goes on where it stopped; cut models are kept in ``--work``. ``--clock cpu`` counts the processor time of this
process and not the time on the wall, for a machine that does other work meanwhile. Only training is timed. Photos:
those that scikit-image, scikit-learn and foolbox ship, 40 files: 30 teach, 5 choose, 5 judge. ``--images elpv`` takes
cells of the elpv set (electroluminescence of solar modules) instead, as the folder of a user who has hundreds of
images of one kind: of 400 files 300 teach, 64 choose, 32 judge, and the repair learns from 128. Rows of elpv in the
committed table are from before, when 16 chose and 16 judged.

``--runs RUN ...`` recovers finished runs of ``fewer compress`` instead, by the verb itself, which judges on the model's
own kernels: ``option`` is then the budget. For a folder of all 2,624 cells of the elpv set:

    fewer compress fewer/dinov2-small --images elpv --tokens --budget latency=0.1x --threads 1 --out run-elpv
    OMP_NUM_THREADS=1 python benchmarks/recover.py --runs run-elpv --time 20min
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tables import Table
from torch import Tensor, nn

from fewer.core.duration import parse_duration
from fewer.core.option import Option
from fewer.core.run import RunFolder
from fewer.data.photos import real_photos
from fewer.distillation.blocks import find_blocks
from fewer.distillation.recover import RecoverySettings, TeacherStudent, has_fast_bf16, train_student
from fewer.engine.apply import apply_options
from fewer.engine.judge import Judge
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.refit import refit
from fewer.engine.settings import Settings
from fewer.engine.views import views_of
from fewer.engine.work import Work
from fewer.reports import environment
from fewer.tasks.classify.sets import elpv_cells
from fewer.training.constrained import Held
from fewer.training.history import Fit
from fewer.verbs.recover import recover

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "model", "option", "images", "seed", "method", "time", "clock", "threads", "batch", "rate", "alone", "blocks",
    "views", "average",
    "steps", "best_step", "chosen_before", "chosen_after", "before", "after", "won",
    "quality_name", "quality_before", "quality_after", "wall_seconds",
)  # fmt: skip
KEY = COLUMNS[:14]
ELPV_FILES = 400
CELLS = (
    ("fewer/dinov2-small", "block:16x4@0.5"),
    ("fewer/mobilenet-v2", "unstructured@0.7"),
    ("fewer/mobilenet-v2", "block:16x4@0.5"),
    ("fewer/dinov2-small", "block:16x16@0.5"),
    ("fewer/dinov2-small", "unstructured@0.7"),
    ("fewer/dinov2-small", "block:16x4@0.7"),
    ("fewer/dinov2-small", "block:16x16@0.7"),
)
METHODS: dict[str, dict[str, float]] = {
    "default": {"views": 400},
    "fit": {"views": 400, "blocks_first": 1.0, "learning_rate": 1e-9},
    "blocks": {},
    # at a rate of its own: 3e-4 was better than 2e-3 and 6e-3 in short trials at half the resolution
    "end to end": {"blocks_first": 0.0, "block_weight": 0.0, "learning_rate": 3e-4},
    "together": {"blocks_first": 0.0},
    "alone": {"blocks_first": 1.0},
}


def files_of(images: str) -> list[Path]:
    """The images of a user."""
    if images == "photos":
        return [photo.path for photo in real_photos()]
    return [path for path, _ in elpv_cells("train")[:ELPV_FILES]]


def cut(
    work: Path, prepared: Prepared, settings: Settings, option: str, images: str
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model with every layer at one option, repaired in order; made once."""
    name = f"{prepared.loaded.name}-{option}-{images}".replace("/", "-").replace(":", "-")
    place = work / f"{name}.safetensors"
    if not place.exists():
        wanted = Option.parse(option)
        ladder = (Option(), Option(wanted.pattern, wanted.sparsity / 2), wanted)
        units = [unit.name for unit in prepared.matched.units]
        model, masks = apply_options(
            Work(prepared, settings), dict.fromkeys(units, ladder), dict.fromkeys(units, wanted)
        )
        state = {f"model.{key}": value.contiguous() for key, value in model.state_dict().items()}
        work.mkdir(parents=True, exist_ok=True)
        save_file(state | {f"mask.{key}": mask.contiguous() for key, mask in masks.items()}, place)
    tensors = load_file(place)
    model = copy.deepcopy(prepared.model)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    return model, {k.removeprefix("mask."): v for k, v in tensors.items() if k.startswith("mask.")}


def run(
    work: Path, model: str, option: str, images: str, seed: int, method: str, seconds: float, clock: str
) -> dict[str, str]:
    """Train one cell; a row of the table."""
    files = files_of(images)
    calibration = 40 if images == "photos" else 128
    settings = Settings(pattern=Option.parse(option).pattern, calibration=calibration, heldout=32)
    prepared = prepare(model, files, settings)
    student, masks = cut(work, prepared, settings, option, images)
    views = views_of(prepared, files, seed)
    judge = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task)
    choosing = Judge(prepared.model, views.choosing, task=prepared.loaded.task)
    judging = views.judges
    blocks = find_blocks(prepared.model, list(masks), prepared.calibration[:1])
    held = {name: Held(mask) for name, mask in masks.items()}
    choices = dict(METHODS[method])
    count = int(choices.pop("views", 0))
    settings = RecoverySettings(seconds=seconds, bf16=has_fast_bf16(), **choices)
    clock_of = time.perf_counter if clock == "wall" else time.process_time
    (before,), began = judge.judge_parts(student, judging), time.perf_counter()
    fit, start = Fit(better="lower"), clock_of()
    if count:
        fit.note(student, choosing.judge(student).distortion)
        refit(prepared, settings, student, masks, dict.fromkeys(masks, "fp32"), views.draw(0, count))
        fit.seconds = clock_of() - start
        if not fit.note(student, choosing.judge(student).distortion):
            fit.load_best(student)
    fit = train_student(
        TeacherStudent(prepared.model, student, held, blocks, choosing.reference),
        settings,
        lambda step: views.draw(step, settings.batch),
        lambda net: choosing.judge(net).distortion,
        start=fit,
        clock=clock_of,
    )
    wall, (after,) = time.perf_counter() - began, judge.judge_parts(student, judging)
    print("#", [round(entry["score"], 4) for entry in fit.history], flush=True)
    return {
        "steps": str(fit.step),
        "best_step": str(fit.best_step),
        "chosen_before": f"{fit.history[0]['score']:.6g}",
        "chosen_after": f"{fit.best_score:.6g}",
        "before": f"{before.distortion:.6g}",
        "after": f"{after.distortion:.6g}",
        "won": f"{1 - after.distortion / before.distortion:.4f}",
        "quality_name": after.name,
        "quality_before": f"{before.value:.5f}",
        "quality_after": f"{after.value:.5f}",
        "wall_seconds": f"{wall:.0f}",
    }


def of_run(run: Path, length: str) -> dict[str, str]:
    """What ``fewer recover`` gives for a run; a row of the table, with its key."""
    folder = RunFolder.open(run)
    config, plan = folder.read_config(), json.loads(folder.file("plan").read_text("utf-8"))
    tokens = " with merged tokens" if config["settings"].get("tokens") else ""
    usual = RecoverySettings(seconds=1.0)
    with tempfile.TemporaryDirectory() as place:
        found = recover(run, length, out=Path(place) / "recovered").report.recovery
    assert found is not None
    key = (config["model"], ", ".join(map(str, plan["budgets"])) + tokens, Path(config["images"]).name)
    key += (config["settings"]["seed"], "default", length, "wall", torch.get_num_threads())
    key += (usual.batch, usual.learning_rate, usual.blocks_first, usual.block_weight, found.refitted, "yes")
    return dict(zip(KEY, map(str, key), strict=True)) | {
        "steps": str(found.steps),
        "best_step": str(found.best_step),
        "chosen_before": f"{found.points[0][1]:.6g}",
        "chosen_after": f"{min(error for _, error in found.points):.6g}",
        "before": f"{found.before:.6g}",
        "after": f"{found.after:.6g}",
        "won": f"{1 - found.after / found.before:.4f}",
        "quality_name": found.quality_name,
        "quality_before": f"{found.quality_before:.5f}",
        "quality_after": f"{found.quality_after:.5f}",
        "wall_seconds": f"{found.seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    parser.add_argument("--work", type=Path, default=Path("recover-work"))
    parser.add_argument("--time", default="10min")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=["default", "blocks", "end to end"])
    parser.add_argument("--cells", nargs="*", type=int, default=list(range(len(CELLS))), help="numbers of settings")
    parser.add_argument("--images", choices=("photos", "elpv"), default="photos")
    parser.add_argument("--out", type=Path, default=HERE / "recover.csv")
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, len(KEY))
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for folder in args.runs:
        table.add(of_run(folder, args.time))
    for seed in range(0 if args.runs else args.seeds):
        for model, option in (CELLS[index] for index in args.cells):
            for method in args.methods:
                choices = dict(METHODS[method])
                count = int(choices.pop("views", 0))
                settings = RecoverySettings(seconds=1.0, **choices)
                how = (
                    settings.batch,
                    settings.learning_rate,
                    settings.blocks_first,
                    settings.block_weight,
                    count,
                    "yes",
                )
                values = (
                    model,
                    option,
                    args.images,
                    seed,
                    method,
                    args.time,
                    args.clock,
                    torch.get_num_threads(),
                    *how,
                )
                row = dict(zip(KEY, map(str, values), strict=True))
                if row in table:
                    continue
                seconds = parse_duration(args.time)
                table.add(row | run(args.work, model, option, args.images, seed, method, seconds, args.clock))


if __name__ == "__main__":
    main()
