"""What a protocol knows of a sequence: who walks, in which condition, seen from where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["Walk", "Walks"]


@dataclass(frozen=True, order=True)
class Walk:
    """One sequence by name.

    Attributes
    ----------
    person
        Identity, such as ``001``.
    kind
        Condition and number, such as ``nm-01``; of OU-MVLP ``00`` or ``01``.
    view
        Camera, such as ``090``.
    """

    person: str
    kind: str
    view: str

    @property
    def condition(self) -> str:
        """The condition without its number.

        Examples
        --------
        >>> Walk("001", "nm-01", "090").condition
        'nm'
        """
        return self.kind.split("-")[0]

    def __str__(self) -> str:
        return "/".join(part for part in (self.person, self.kind, self.view) if part)


@dataclass(frozen=True, eq=False)
class Walks:
    """Embeddings of sequences.

    Attributes
    ----------
    walks
        Their names.
    embeddings
        Shape (sequences, channels, parts), or (sequences, channels); may be a memory map.
    """

    walks: Sequence[Walk]
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        if len(self.walks) != len(self.embeddings):
            raise FewerError(f"{len(self.walks)} names, but {len(self.embeddings)} embeddings; give one for each")

    def __len__(self) -> int:
        return len(self.walks)

    @property
    def people(self) -> np.ndarray:
        """Identity of each sequence."""
        return np.array([walk.person for walk in self.walks])

    @property
    def views(self) -> list[str]:
        """All views, in order."""
        return sorted({walk.view for walk in self.walks})

    def rows(self, keep: Callable[[Walk], bool]) -> np.ndarray:
        """Positions of sequences that are kept.

        Examples
        --------
        >>> walks = Walks([Walk("1", "nm-01", "000"), Walk("1", "cl-01", "000")], np.zeros((2, 3)))
        >>> walks.rows(lambda walk: walk.condition == "cl").tolist()
        [1]
        """
        return np.array([i for i, walk in enumerate(self.walks) if keep(walk)], dtype=int)
