"""The table of verbs. Each one's file is imported only when its help is shown or it is run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownCommandError

from fewer.core.errors import near_match
from fewer.core.version import __version__

__all__ = ["VERBS", "app", "describe", "explain"]

VERBS = {
    "demo": "Compress a real pretrained Vision Transformer, with real photos, without a network.",
    "compress": "Make a model meet a budget with the least change of its output, and write the evidence down.",
    "sense": "Measure once what every cut costs and harms; any budget is then planned from it.",
    "plan": "Plan another budget from the same curves, in milliseconds.",
    "apply": "Make the model of a plan.",
    "recover": "Win back quality by training on unlabelled images for a given time; masks and precisions stay.",
    "report": "Write the page of a run again, and say its verdict.",
    "profile": "Time what a model's layers cost on this machine, for budgets in milliseconds and joules.",
    "select": "Choose the images of an unlabelled pool that should be annotated first, and say why.",
    "bench": "Time a model or a run beside the runtimes that could be used instead.",
    "export": "Write a run's model for onnxruntime, OpenVINO or torch.export, and say what is lost on the way.",
    "doctor": "Find what is wrong with a data set, and write a repaired copy.",
    "train": "Train a segmentation network from images and masks, with or without a warm-up on images alone.",
    "eval": "Score a trained run, or a folder of masks, on annotated cases.",
    "predict": "Write a mask for every image of a folder.",
    "info": "Show a run folder, or which layers of a model can be cut, and why not the others.",
    "list": "List models, presets, patterns, allocators or selection methods.",
}
"""Every verb and what it does, in the order of the help."""

app = App(
    name="fewer",
    version=f"fewer {__version__}",
    help="Give it a vision model, images and a budget; get back a model that meets it, and the evidence.\n\n"
    "fewer demo   shows it on a real Vision Transformer and real photos.",
    help_format="plaintext",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main() says what an interrupt means for the run
)
for _order, (_verb, _help) in enumerate(VERBS.items()):
    if importlib.util.find_spec(f"fewer.cli.{_verb}") is not None:  # a verb may still be on its way
        app.command(
            f"fewer.cli.{_verb}:{_verb + '_' if _verb in ('list', 'eval') else _verb}",
            name=_verb,
            help=_help,
            sort_key=_order,
        )


def describe(verb: str) -> None:
    """Put all that a verb's docstring says before its parameters onto its help page.

    The table of verbs has one line for each, so that it can be shown without importing them.
    """
    module = importlib.import_module(f"fewer.cli.{verb}")
    function = getattr(module, verb if hasattr(module, verb) else f"{verb}_")
    text = inspect.cleandoc(function.__doc__ or "").partition("\nParameters\n")[0]
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    app[verb].help = "\n\n".join([VERBS[verb], *paragraphs[1:]])


def explain(error: CycloptsError, words: list[str]) -> str:
    """One sentence for words that could not be parsed: what is wrong, the nearest valid name, where to look."""
    verb = next((word for word in words if word in VERBS), "")
    see = f"see fewer {verb} --help" if verb else "see fewer --help"
    if isinstance(error, UnknownCommandError):
        wrong = next((word for word in words if word not in VERBS), "")
        if wrong.startswith("-"):
            return f"unknown option {wrong}{near_match(wrong, ['--help', '--version'])}; {see}"
        return f"unknown verb {wrong!r}{near_match(wrong, VERBS)}; {see}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and verb:
        name = error.argument.name
        if not name.startswith("-"):
            return f"fewer {verb} needs {'an' if name[0] in 'AEIOU' else 'a'} {name}; {see}"
    sentence = " ".join(str(error).split()).rstrip(".?")
    sentence = sentence.replace(". Did you mean", "; did you mean").replace("Unused Tokens", "too many words")
    return f"{sentence[:1].lower()}{sentence[1:]}{'?' if 'did you mean' in sentence else ''}; {see}"
