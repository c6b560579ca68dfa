"""Put a link in the place of every file and folder that a verb finds; nothing behind a link may change.

Symbolic links to a file, to a folder and to nothing, and hard links; before the work, and in the midst of it, where an
interrupted one is gone on with. Some verbs run with the tests. By hand, all of them::

    PYTHONPATH=src:. python tests/fuzz/links.py --only select study-new
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.kills import VERBS
from tests.fuzz.verb import Verb
from tests.support.kill import KILLED, killed_at, operations

__all__ = ["KINDS", "check_link", "places_of"]

KINDS = ("file", "folder", "nothing", "second name")
_BOOKKEEPING = (".lock", ".next", ".edit", ".scratch", ".next/.commit", ".edit/.commit")


def places_of(folder: Path) -> list[str]:
    """Every file and folder that is there, and the bookkeeping that could be there, below each marked folder."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    for mark in folder.rglob(".fewer-*"):
        found |= {(mark.parent / name).relative_to(folder).as_posix() for name in _BOOKKEEPING}
    return sorted(found)


def _plant(path: Path, kind: str, outside: Path) -> bool:
    """Replace a file or folder by a link to what it was, kept outside; False where that makes no sense."""
    if not path.parent.is_dir() or path.is_symlink():
        return False
    if kind == "nothing":
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(outside / "not-there")
        return True
    kept = outside / "kept"
    if path.is_dir():
        if kind != "folder":
            return False
        path.rename(kept)
    elif kind == "folder":
        if path.exists():
            return False
        kept.mkdir()
        (kept / "file").write_bytes(b"precious")
    elif path.exists():
        path.rename(kept)
    else:
        kept.write_bytes(b"precious")
    if kind == "second name":
        path.hardlink_to(kept)
    else:
        path.symlink_to(kept)
    return True


def _told(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
    }


def _works(verb: Verb, place: Path, resume: bool) -> str:
    """Do the work in a process of its own; nothing where it worked or said one sentence, else the traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        from fewer.core.errors import FewerError

        os.close(reader)
        said = ""
        try:
            verb.work(place, resume)
        except FewerError as error:
            said = "" if "\n" not in str(error).strip() else f"more than one line: {error}"
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writer, said.encode()[-60_000:])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said if code == 0 else f"the process ended with {code}: {said}"


def check_link(verb: Verb, start: Path, folder: Path, name: str, kind: str, resume: bool) -> str | None:
    """What is wrong where a link of some kind is at ``name``; nothing where all is well, None where none can be."""
    shutil.rmtree(folder, ignore_errors=True)
    place, outside = folder / "place", folder / "outside"
    shutil.copytree(start, place, symlinks=True)
    outside.mkdir()
    (outside / "beside").write_bytes(b"precious")
    if not _plant(place / name, kind, outside):
        return None
    before = _told(outside)
    said = _works(verb, place, resume)
    after = _told(outside)
    if after != before:
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        return f"{name} as a link to {kind}: changed {', '.join(changed)} behind it"
    return f"{name} as a link to {kind}: {said}" if said else ""


def states(verb: Verb, folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """What the work starts from: untouched, done, or killed after a half and near the end."""
    base, place = folder / "base", folder / "try" / "place"  # the same path every time: some files hold paths
    base.mkdir()
    place.parent.mkdir()
    verb.prepare(base)
    yield "before", base, False
    shutil.rmtree(place.parent)
    shutil.copytree(base, place)
    count = operations(place, verb.work, place, False)
    yield "afterwards", place.rename(folder / "done"), True
    for name, at in (("at a half", count // 2), ("near the end", count - 2)):
        shutil.rmtree(place.parent)
        shutil.copytree(base, place)
        if at > 0 and killed_at(at, place, verb.work, place, False) == KILLED:
            yield name, place.rename(folder / name), True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(VERBS))
    parser.add_argument("--every", type=int, default=1, help="only every so many links")
    words = parser.parse_args()
    faults = 0
    for name in words.only or VERBS:
        with tempfile.TemporaryDirectory(prefix="fewer-links-") as folder:
            count, number = 0, 0
            for state, start, resume in states(VERBS[name], Path(folder)):
                for place in places_of(start):
                    for kind in KINDS:
                        number += 1
                        if number % words.every:
                            continue
                        wrong = check_link(VERBS[name], start, Path(folder, "try"), place, kind, resume)
                        count += wrong is not None
                        if wrong:
                            faults += 1
                            print(f"  {name} {state}: {wrong}", flush=True)
            print(f"{name}: {count} links", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
