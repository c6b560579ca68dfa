"""The table of verbs. Each one's file is imported only when its help is shown or it is run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownCommandError

from fewer.core.errors import near_match
from fewer.core.version import __version__

__all__ = ["VERBS", "app_for", "explain", "make_app"]

TASK_VERBS = ("train", "eval", "predict")
"""Verbs whose flags depend on the task."""

VERBS = {
    "demo": "Compress a real pretrained Vision Transformer, with real photos, without a network.",
    "compress": "Make a model meet a budget with the least change of its output, and write the evidence down.",
    "sense": "Measure once what every cut costs and distorts; any budget is then planned from it.",
    "plan": "Plan another budget from the same curves, in milliseconds.",
    "apply": "Make the model of a plan.",
    "recover": "Win back quality by training on unlabelled images for a given time; masks and precisions stay.",
    "report": "Write the page of a run again, and say its verdict.",
    "profile": "Time what a model's layers cost on this machine, for budgets in milliseconds and joules.",
    "select": "Choose the images of an unlabelled pool that should be annotated first, and say why.",
    "bench": "Time a model or a run beside the runtimes that could be used instead.",
    "export": "Write a run's model for onnxruntime, OpenVINO or torch.export, and say what is lost on the way.",
    "doctor": "Find what is wrong with a data set, and write a repaired copy.",
    "train": "Train a network of a task from annotated data: classes, masks and others. See: fewer list tasks",
    "adapt": "Carry a segmentation from a labelled source to an unlabelled target of another modality.",
    "eval": "Score a model or a folder of predictions on annotated data.",
    "predict": "Write what a trained network says of new data.",
    "private": "Let a server compute on images that it cannot see: compile, keys, serve, query.",
    "tune": "Tune a vision-language model on conversations about how images look.",
    "study": "Collect people's feedback on how images look: new, serve, status, export, delete.",
    "info": "Show a run folder, or which layers of a model can be cut, and why not the others.",
    "list": "List models, tasks, presets, patterns, allocators or selection methods.",
}
"""Every verb and what it does, in the order of the help."""


def make_app() -> App:
    """The command line without anything parsed yet."""
    made = App(
        name="fewer",
        version=f"fewer {__version__}",
        help="Give it a vision model, images and a budget; get back a model that meets it, and the evidence.\n\n"
        "fewer demo   shows it on a real Vision Transformer and real photos.",
        help_format="plaintext",
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,  # main() says what an interrupt means for the run
    )
    for order, (verb, words) in enumerate(VERBS.items()):
        if importlib.util.find_spec(f"fewer.cli.{verb}") is not None:  # a verb may still be on its way
            made.command(f"fewer.cli.{verb}:{_function(verb)}", name=verb, help=words, sort_key=order)
    return made


def _function(verb: str) -> str:
    return verb + "_" if verb in ("list", "eval") else verb


def app_for(words: Sequence[str]) -> App:
    """The command line for these words: a verb of a task has the flags of the task that they mean.

    Raises
    ------
    FewerError
        For an unknown task.
    """
    made = make_app()
    verb = words[0] if words else ""
    if verb in TASK_VERBS:
        from fewer.cli.task_flags import command_for, task_of_words

        function = getattr(importlib.import_module(f"fewer.cli.{verb}"), _function(verb))
        task = task_of_words(verb, list(words[1:]))
        del made[verb]
        made.command(command_for(verb, function, task), name=verb, help=VERBS[verb])
    if verb in VERBS and {"--help", "-h"} & set(words):
        describe(made, verb)
    return made


def describe(app: App, verb: str) -> None:
    """Put all that a verb's docstring says before its parameters onto its help page.

    The table of verbs has one line for each, so that it can be shown without importing them.
    """
    module = importlib.import_module(f"fewer.cli.{verb}")
    function = getattr(module, _function(verb))
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
