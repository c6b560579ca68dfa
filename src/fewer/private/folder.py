"""The folders of encrypted inference: a circuit with its description, and keys."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.folder import MarkedFolder

__all__ = ["CIRCUIT", "FACTS", "PAGE", "PUBLIC", "SECRET", "CircuitFolder", "KeysFolder"]

CIRCUIT, PUBLIC, SECRET = "circuit.npz", "public.json", "secret.key"
PAGE, FACTS = "circuit.html", "circuit.json"


class CircuitFolder(MarkedFolder):
    """A folder with ``circuit.npz`` (the server's weights), ``public.json`` (for clients), and a page, also as JSON."""

    MARK, MAKER = ".fewer-circuit", "fewer private compile"

    def is_part(self, name: str) -> bool:
        """The weights, the description, and the page with its numbers."""
        return name in (CIRCUIT, PUBLIC, PAGE, FACTS)

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> CircuitFolder:
        """Make the folder and lock it; an old circuit stays whole until the new one is complete.

        Raises
        ------
        FewerError
            When it holds a circuit that may not be replaced, or something else, or cannot be made.
        """
        folder = cls(path)
        folder.look()
        folder.hold()
        with folder.taking_over():
            folder.settle()
            if (folder.home / PUBLIC).exists() and not overwrite:
                raise FewerError(
                    f"{path} holds a circuit already; give another --out, or --overwrite and make keys anew"
                )
            folder.begin(overwrite=overwrite)
        return folder


class KeysFolder(MarkedFolder):
    """A folder of keys, for the owner of the images alone. A secret key is never replaced."""

    MARK, MAKER = ".fewer-keys", "fewer private keys"
    ENDS_WITHOUT_TRACE = BaseException  # no half of a set of keys stays, also after Ctrl-C

    def is_part(self, name: str) -> bool:
        """The keys, the circuit that they are for, and their name."""
        return name in (SECRET, "relin.key", "galois.key", PUBLIC, "id")

    @classmethod
    def create(cls, path: str | Path) -> KeysFolder:
        """Make the folder, for its owner alone, and lock it.

        Raises
        ------
        FewerError
            When it holds keys or something else, or cannot be made.
        """
        folder = cls(path)
        folder.look()
        folder.hold()
        with folder.taking_over():
            folder.settle()
            if (folder.home / SECRET).exists():
                raise FewerError(
                    f"{folder.home / SECRET} exists; a new key would make old answers unreadable, so give a new folder"
                )
            folder.begin()
            folder.home.chmod(0o700)
        return folder
