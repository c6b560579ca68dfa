"""``fewer export``: a run's model for other runtimes."""

from __future__ import annotations

from fewer.cli.flags import Shared, usable_device

__all__ = ["export"]


def export(
    run: str,
    /,
    *,
    to: str = "onnx",
    deploy_batch: int = 1,
    activations: str = "float",
    images: str | None = None,
    shared: Shared | None = None,
) -> int:
    """Write a run's model for onnxruntime, OpenVINO, torch.export or the Hugging Face Hub, and say what is lost.

    What is written is read again and compared with the model before it gets its name.

    Parameters
    ----------
    run
        A run folder.
    to
        onnx, torch, kernels (torch.export with this package's kernels in it), or huggingface (a folder with a model
        card, written from the report; needs --out).
    deploy_batch
        Images at once, as when the model is used; the file takes only inputs of this size.
    activations
        Of int8 layers, in ONNX: float (exact), or static (rounded with fixed scales, for int8 products elsewhere).
    images
        For static activations; by default those of the run.
    """
    from dataclasses import asdict

    import fewer
    from fewer.cli.show import as_json, say, say_would

    shared = shared or Shared()
    usable_device(shared)
    if shared.dry_run:
        told = f"would write the model of {run} as {to}, {deploy_batch} at once"
        return say_would([told], shared.json, run=run, to=to, out=shared.out)
    made = fewer.export(
        run,
        to,
        out=shared.out,
        deploy_batch=deploy_batch,
        overwrite=shared.overwrite,
        activations=activations,
        images=images,
        device=shared.device or "cpu",
    )
    if shared.json:
        as_json({**asdict(made), "path": str(made.path)})
        return 0
    checked = _unchecked() if made.difference is None else f"differs by {made.difference:.1e}"
    from fewer.reports.numbers import data_size

    say(f"wrote {made.path} ({data_size(made.bytes)}); output {checked}", "lost on the way:")
    say(*(f"- {sentence}" for sentence in made.lost))
    return 0


def _unchecked() -> str:
    """Why the output of a file was not compared with the model's."""
    from importlib.util import find_spec

    lacking = find_spec("onnxruntime") is None
    return "not checked: onnxruntime is not installed" if lacking else "not compared with the model's"
