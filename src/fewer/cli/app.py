"""The table of verbs. Each one's file is imported only when its help is shown or it is run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import App, CycloptsError, Group, MissingArgumentError, UnknownCommandError

from fewer.cli.help import ALL, COMMON, GROUPS, Drawn, closing_words, full_help, group_of, right_name
from fewer.core.errors import near_match
from fewer.core.version import __version__

__all__ = ["VERBS", "app_for", "explain", "make_app", "with_owners", "with_switches"]

TASK_VERBS = ("train", "eval", "predict")
"""Verbs whose flags depend on the task."""

VERBS = {
    "demo": "See it work: a real Vision Transformer, real photos, no network.",
    "info": "Show what a run holds, or which layers of a model can be cut.",
    "list": "List models, tasks, presets, patterns and methods.",
    "compress": "Meet a budget with the least change of the model's output.",
    "recover": "Win back quality by training, without labels.",
    "report": "Write the page of a run again, and say its verdict.",
    "bench": "Time a model or a run beside other runtimes.",
    "export": "Write a run's model for onnxruntime, OpenVINO or torch.",
    "sense": "Measure once what every cut costs and distorts.",
    "plan": "Plan another budget from that, in milliseconds.",
    "apply": "Make the model of a plan.",
    "profile": "Time what a model's layers cost on this machine.",
    "select": "Choose which images to annotate first, and say why.",
    "doctor": "Find what is wrong with a data set; repair a copy.",
    "train": "Train a network of a task from annotated data.",
    "eval": "Score a model or predictions on annotated data.",
    "predict": "Write what a trained network says of new data.",
    "adapt": "Carry a segmentation to another modality without labels.",
    "private": "Compute on encrypted images: compile, keys, serve, query.",
    "study": "Collect people's feedback on how images look.",
    "tune": "Tune a vision-language model on such feedback.",
}
"""Every verb and what it does in one line, in the order of the help. Its own help has the docstring in full."""


def make_app() -> App:
    """The command line without anything parsed yet."""
    made = App(
        name="fewer",
        version=f"fewer {__version__}",
        help="Give it a vision model, images and a budget; get back a model that meets it, and the evidence.",
        help_epilogue="fewer VERB --help shows the options that most people need, fewer VERB --help-all all of them.\n"
        "Exit codes: 0 done, 2 the input cannot be used, 3 over the budget, 130 interrupted, 1 a defect of fewer.",
        help_format="plaintext",
        version_flags=["--version"],
        group_commands=Group("Settings of the shell", sort_key=99),
        suppress_keyboard_interrupt=False,  # main() says what an interrupt means for the run
    )
    made.register_install_completion_command(help="Complete verbs and options with the tab key.")
    groups = {heading: Group(heading, sort_key=order) for order, heading in enumerate(GROUPS)}
    for order, (verb, words) in enumerate(VERBS.items()):
        if importlib.util.find_spec(f"fewer.cli.{verb}") is not None:  # a verb may still be on its way
            where = f"fewer.cli.{verb}:{_function(verb)}"
            made.command(where, name=verb, help=words, sort_key=order, group=groups[group_of(verb)])
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
        heading = made[verb].group
        del made[verb]
        made.command(command_for(verb, function, task), name=verb, help=VERBS[verb], group=heading)
    if verb in VERBS and {"--help", "-h", ALL} & set(words):
        describe(made, verb, words)
    return made


def describe(app: App, verb: str, words: Sequence[str] = ()) -> None:
    """Put all that a verb's docstring says before its parameters onto its help page, and examples after them.

    The table of verbs has one line for each, so that it can be shown without importing them.
    """
    module = importlib.import_module(f"fewer.cli.{verb}")
    function = getattr(module, _function(verb))
    text = inspect.cleandoc(function.__doc__ or "").partition("\nParameters\n")[0]
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    app[verb].help = "\n\n".join(paragraphs)
    app[verb].help_epilogue = closing_words(verb, words)
    app[verb].help_formatter = Drawn(None if full_help(words) else COMMON.get(verb))


def explain(error: CycloptsError, words: list[str]) -> str:
    """One sentence for words that could not be parsed: what is wrong, the nearest valid name, where to look."""
    verb = next((word for word in words if word in VERBS), "")
    see = f"see fewer {verb} {ALL if verb in COMMON else '--help'}" if verb else "see fewer --help"
    if isinstance(error, UnknownCommandError):
        wrong = next((word for word in words if word not in VERBS), "")
        if wrong.startswith("-"):
            return f"unknown option {wrong}{near_match(wrong, ['--help', '--version'])}; {see}"
        return f"unknown verb {wrong!r}{near_match(wrong, VERBS)}; {see}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and verb:
        name = error.argument.name
        if not name.startswith("-"):
            return f"fewer {verb} needs {'an' if name[0] in 'AEIOU' else 'a'} {name}; {see}"
    if verb and str(error).startswith("Unknown option"):
        return f"unknown option: {_unknown(error, verb, words)}; {see}"
    sentence = " ".join(str(error).split()).rstrip(".?")
    sentence = sentence.replace(". Did you mean", "; did you mean").replace("Unused Tokens", "too many words")
    return f"{sentence[:1].lower()}{sentence[1:]}{'?' if 'did you mean' in sentence else ''}; {see}"


def with_owners(sentence: str, words: Sequence[str]) -> str:
    """Say of the flags that a sentence names, and this verb has not, whose they are.

    Shared parts tell what helps in the verb that uses them most. A flag after ``fewer VERB`` has its owner.
    """
    verb = words[0] if words else ""
    named = {m[0] for m in _FLAG.finditer(sentence) if not _COMMAND.search(sentence[: m.start()])}
    if verb not in VERBS or not named:
        return sentence
    others = sorted(named - _flags_of(verb, words))
    for flag in others:
        owners = [other for other in VERBS if other not in (verb, "demo") and flag in _flags_of(other, [other])]
        if owners:
            sentence += f" ({flag} is a flag of fewer {' and fewer '.join(owners[:2])})"
    return sentence


def with_switches(words: Sequence[str]) -> list[str]:
    """The words, with a switch that has a word behind it, ``--readings off``, as the parser reads it.

    Without one a switch is on, so a switch that is on by itself could be turned off in no other way.
    """
    verb = words[0] if words else ""
    if verb not in VERBS or not any(word.rpartition("=")[2].lower() in _SWITCHED for word in words[1:]):
        return list(words)
    found = app_for(list(words))[verb].assemble_argument_collection()
    switches = {name for argument in found if "bool" in str(argument.hint) for name in argument.names}
    made: list[str] = []
    for word in words:
        name, _, value = word.partition("=")
        if made and made[-1] in switches and word.lower() in _SWITCHED:
            made[-1] += f"={_SWITCHED[word.lower()]}"
        elif name in switches and value.lower() in _SWITCHED:
            made.append(f"{name}={_SWITCHED[value.lower()]}")
        else:
            made.append(word)
    return made


_SWITCHED = {"on": "true", "yes": "true", "true": "true", "off": "false", "no": "false", "false": "false"}


def _flags_of(verb: str, words: Sequence[str]) -> set[str]:
    found = app_for(list(words))[verb].assemble_argument_collection()
    return {name for argument in found for name in argument.names}


_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_COMMAND = re.compile(rf"\bfewer ({'|'.join(VERBS)})\b[^;,.]*$")


def _unknown(error: CycloptsError, verb: str, words: Sequence[str]) -> str:
    """An option that the verb has not, and the one that was meant, as far as that can be told.

    Names are compared without their hyphens, which all of them share: ``--model`` is not nearly ``--time``.
    """
    arguments = app_for(list(words))[verb].assemble_argument_collection()
    known = [name for argument in arguments for name in argument.names if name.startswith("--")]
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    wrong = next((word for word in given if word not in known), "")
    if not wrong:  # one with a single hyphen
        return str(error).partition('"')[2].partition('"')[0]
    if right := right_name(wrong, known):
        return f"{wrong}; here it is called {right}"
    plain = {name.strip("-"): name for name in known}
    near = get_close_matches(wrong.strip("-").lower(), plain, n=1, cutoff=0.7)
    near = near or [name for name in plain if len(wrong) > 4 and name.startswith(wrong.strip("-"))]
    return f"{wrong}; did you mean {plain[near[0]]}?" if near else wrong
