"""Entry point: runs a verb and turns whatever happens into an exit code and at most one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from fewer.cli.terminal import guard_terminal, printable
from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error

__all__ = ["main"]

BAD_INPUT, INTERNAL, INTERRUPTED, NOBODY_READS = 2, 1, 130, 141
AT_ONCE = frozenset(
    {"bench", "doctor", "eval", "export", "info", "list", "plan", "private", "profile", "report", "study"}
)
"""Verbs that begin anew when they are called again: there is nothing for --resume to go on with."""

_LISTS = frozenset({"--baselines", "--exclude"})
"""Flags whose value may be empty: a list of nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Words after the program's name; by default those of the process.

    Returns
    -------
    int
        0: done. 2: bad input. 3: the finished model is over its budget. 130: interrupted. 1: a defect of this program.
        141: nobody reads the output.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if not debug:
        _quiet_warnings()
    guard_terminal()
    try:
        return _run(words)
    except KeyboardInterrupt:
        _say(f"interrupted; nothing is lost{_way_on(words)}")
        return INTERRUPTED
    except FewerError as error:
        if debug:
            raise
        _say(f"error: {_with_owners(str(error), words)}")
        return BAD_INPUT
    except BrokenPipeError:
        # `fewer list | head -1`; what is still buffered must not fail again when Python closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except MemoryError:
        if debug:
            raise
        _say(f"error: {_with_owners('out of memory; give fewer images, or smaller batches with --batch', words)}")
        return BAD_INPUT
    except UnicodeEncodeError as error:
        if debug:
            raise
        _say(f"error: {ascii(error.object)[:80]} is no valid UTF-8, so it cannot be kept; give another name")
        return BAD_INPUT
    except Exception as error:
        if debug:
            raise
        if _disk_is_full(error):
            _say("error: no space left on the disk; free some space and run the same command with --resume")
            return BAD_INPUT
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            # no permission, a name that is too long, a loop of links: of a file that the user named
            _say(f"error: {explain_os_error(error, Path(os.fsdecode(error.filename)), 'use')}")
            return BAD_INPUT
        _say(f"internal error: {type(error).__name__}: {error}; run it again with --debug and report what it prints")
        return INTERNAL


def _run(words: list[str]) -> int:
    from cyclopts import CycloptsError

    from fewer.cli.app import app_for, explain, with_switches
    from fewer.cli.config import check_environment
    from fewer.cli.help import plain_help
    from fewer.cli.work import remember_command
    from fewer.models.trust import forget_trust

    if any("\0" in word for word in words):  # a shell gives none, but a program may
        raise FewerError("a word of the command holds a null character, which no name and no number has")
    _refuse_empty(words)
    remember_command(words)
    forget_trust()
    check_environment(os.environ)
    try:
        app, read = app_for(words), plain_help(with_switches(words))
        done = app(read, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # here, so that a reader who left is noticed
        return done if isinstance(done, int) else 0
    except CycloptsError as error:
        raise FewerError(explain(error, words)) from None


def _with_owners(sentence: str, words: Sequence[str]) -> str:
    """A sentence that says whose the flags are that it names; as it is where that cannot be found out."""
    if "--" not in sentence:
        return sentence
    from fewer.cli.app import with_owners

    with contextlib.suppress(Exception):  # the words themselves may be what is wrong
        return with_owners(sentence, words)
    return sentence


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse a word without a letter, as a shell makes of a variable that is not set: as a path it is this folder."""
    for before, word in zip(["", *words], words, strict=False):
        name, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value.strip() and name not in _LISTS:
            what = name if name.startswith("--") else "a word of the command"
            raise FewerError(f"{what} is empty; a variable of the shell may not be set")


def _way_on(words: list[str]) -> str:
    if words and words[0] in AT_ONCE:
        return ""
    # what was sensed so far is in the run folder's ledger, and a run that is overwritten is still whole
    return ": run the same command with --resume" + (" in place of --overwrite" if "--overwrite" in words else "")


def _disk_is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error; libraries wrap it, some as text only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return f"os error {errno.ENOSPC}" in str(error) or (error.__cause__ is not None and _disk_is_full(error.__cause__))


def _say(sentence: str) -> None:
    # exactly one line, whatever a library put into its message
    print(" ".join(printable(sentence).split()), file=sys.stderr, flush=True)


def _quiet_warnings() -> None:
    """Show our own warnings as one plain line each, and hide those of libraries; ``--debug`` shows all."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if str(message).startswith("fewer:"):
            _say(str(message))

    warnings.showwarning = show  # type: ignore[assignment]
