"""Which images are of one subject, so that no split puts some of them on one side and some on the other.

Neighbouring slices of a scan are nearly the same image. Where one trains and the next judges, the network looks better
than it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fewer.core.errors import FewerError

__all__ = ["SUBJECT_RULES", "Subjects", "draw_groups", "subjects_of"]

SUBJECT_RULES = ("auto", "none")
"""Words in place of a pattern: look at the names; or each image by itself."""

_NAMED = re.compile(
    r"^(?:sub|subj|subject|patient|pat|pid|case|volunteer|donor|animal)(?:[-_ ][^\W_]*?)?\d[^\W_]*", re.IGNORECASE
)
"""A name that begins with a word for a subject and its number, as BIDS and many challenges have it.

Letters may stand before the number behind a hyphen only, so that ``submarine_1`` is none.
"""
_MARKED = re.compile(
    r"[-_. ](?:slice|slc|sl|frame|fr|tile|patch|crop|plane|axial|coronal|sagittal|[xyz])[-_ ]?\d+$"
    r"|[-_. ](?:left|right|od|os)$|(?<=\d)(?:z|s|sl|slice)\d+$",
    re.IGNORECASE,
)
"""A part of a subject that says what it is: its number behind a word, or a side of the body."""
_NUMBERED = re.compile(r"[-_. ][^\W\d_]{0,2}\d+$")
"""A number that is a slice's only where what stands before it holds a number too: ``n03_5``, and not ``image_5``."""
FEWEST = 3
"""Subjects from which bare numbers are believed to be those of slices."""


@dataclass(frozen=True)
class Subjects:
    """The subject of each image.

    Attributes
    ----------
    of
        Name of an image -> its subject.
    example
        An image whose subject is told.
    """

    of: dict[str, str]
    example: str = ""

    @property
    def grouped(self) -> bool:
        """Whether a subject has several images."""
        return len(set(self.of.values())) < len(self.of)

    def sentence(self, flag: str = "--subject none") -> str:
        """What was taken as the subject, in words; empty where each image stands for itself.

        Examples
        --------
        >>> subjects_of(["sub01_z012", "sub01_z013", "sub02_z004"]).sentence()
        "3 images are of 2 subjects, such as 'sub01' of sub01_z012; each is on one side of a split (--subject none: ...
        """
        if not self.grouped:
            return ""
        return (
            f"{len(self.of)} images are of {len(set(self.of.values()))} subjects, such as {self.of[self.example]!r} of "
            f"{self.example}; each is on one side of a split ({flag}: each image by itself)"
        )

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """Names by subject, subjects in the order of their first image.

        Examples
        --------
        >>> subjects_of(["a1_z1", "a2_z1", "a1_z2"]).groups(["a1_z1", "a2_z1", "a1_z2"])
        [['a1_z1', 'a1_z2'], ['a2_z1']]
        """
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.of[name], []).append(name)
        return list(found.values())


def draw_groups(
    sizes: Sequence[int], order: Iterable[int], wanted: int, claim: Callable[[int], bool] = lambda _index: True
) -> list[int]:
    """Draw whole groups that have about so many images together.

    Groups are taken in their order. One that would lead further above the number than it now lies below is passed over,
    since a large subject must not make the part that judges the larger one. Where all are too large, the smallest is
    taken. One group at least is left.

    Parameters
    ----------
    sizes
        Images of each group.
    order
        Numbers of the groups, as they were shuffled.
    wanted
        Images that are to be drawn.
    claim
        Called with a group that is to be taken; False leaves it where it is.

    Returns
    -------
    list of int
        Numbers of groups, in the order in which they were taken.

    Examples
    --------
    >>> draw_groups([1, 1, 1, 1], [2, 0, 3, 1], 2)
    [2, 0]
    >>> draw_groups([18, 2], [0, 1], 4), draw_groups([9, 8], [0, 1], 3)
    ([1], [1])
    """
    order, taken, count = list(order), [], 0
    for index in order:
        if count >= wanted or len(taken) >= len(sizes) - 1:
            break
        if count + sizes[index] - wanted <= wanted - count and claim(index):
            taken.append(index)
            count += sizes[index]
    if wanted > 0 and not taken and len(sizes) > 1:
        return next(([index] for index in sorted(order, key=lambda index: sizes[index]) if claim(index)), [])
    return taken


def subjects_of(names: Sequence[str], rule: str = "auto", slices: bool = True, bare: bool = True) -> Subjects:
    """Tell from the names which images are of one subject.

    Parameters
    ----------
    names
        Of images, without their endings.
    rule
        ``auto``, ``none``, or a regular expression whose first group, or whole match, is the subject. With ``auto``, a
        name that begins with a word for a subject and its number says so (``sub-01_ses-2_T1w``,
        ``patient001_frame01``); else what stands before the number of a slice, frame or tile, or before a side of the
        body. A bare number
        counts where what stands before it holds a number too and there are three subjects or more: ``n03_5`` is a
        slice, ``photo_5`` a photo. One subject for all is not believed.
    slices
        Whether an image may be a slice; a volume with a number is a subject of its own.
    bare
        Whether bare numbers are looked at.

    Raises
    ------
    FewerError
        When the pattern is no regular expression, or fits no name, or gives all images the same subject.

    Examples
    --------
    >>> list(subjects_of(["n01_1", "n01_2", "n02_1", "n03_1"]).of.values())
    ['n01', 'n01', 'n02', 'n03']
    >>> subjects_of(["photo_1", "photo_2"]).grouped, subjects_of(["s1_cat", "s1_dog", "s2"], r"s\\d").grouped
    (False, True)
    """
    alone = {name: name for name in names}
    if rule == "none" or not names:
        return Subjects(alone)
    if rule != "auto":
        return _by_pattern(names, rule)
    guesses = (_named, _marked, *(_numbered,) * bare) if slices else (_named, _sided)
    for guess in guesses:
        found = {name: guess(name) for name in names}
        several = len(set(found.values()))
        if several < len(found) and several >= (FEWEST if guess is _numbered else 2):
            return Subjects(found, _example(found))
    return Subjects(alone)


def _by_pattern(names: Sequence[str], rule: str) -> Subjects:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise FewerError(
            f"--subject {rule!r} is neither {' nor '.join(SUBJECT_RULES)}, and no regular expression: {error}"
        ) from None
    matches = {name: pattern.search(name) for name in names}
    if not any(matches.values()):
        raise FewerError(f"--subject {rule!r} fits no name, such as {names[0]!r}; give auto or none for no pattern")
    found = {name: (m.group(1) if pattern.groups else m.group()) or name if m else name for name, m in matches.items()}
    if len(set(found.values())) == 1 and len(found) > 1:
        raise FewerError(f"--subject {rule!r} takes all {len(found)} images as one subject, {found[names[0]]!r}")
    return Subjects(found, _example(found))


def _example(found: dict[str, str]) -> str:
    """The first image whose subject is another name than its own."""
    return next((name for name, subject in found.items() if subject != name), next(iter(found)))


def _named(name: str) -> str:
    match = _NAMED.match(name)
    return match.group().lower() if match else name


def _marked(name: str) -> str:
    while match := _MARKED.search(name):
        if not match.start():
            break
        name = name[: match.start()]
    return name


def _sided(name: str) -> str:
    return re.sub(r"[-_. ](?:left|right|od|os)$", "", name, flags=re.IGNORECASE)


def _numbered(name: str) -> str:
    name = _marked(name)
    match = _NUMBERED.search(name)
    return name[: match.start()] if match and any(map(str.isdigit, name[: match.start()])) else name
