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
    say(*made.lines())
    return 0
