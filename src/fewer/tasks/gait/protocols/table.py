"""The protocols by name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from fewer.core.errors import FewerError, near_match
from fewer.tasks.gait.protocols.casia_b import CasiaB
from fewer.tasks.gait.protocols.grew import Grew
from fewer.tasks.gait.protocols.oumvlp import OuMvlp
from fewer.tasks.gait.protocols.ranked import CrossView, Gait3D, OneGallery
from fewer.tasks.gait.protocols.records import Walks

__all__ = ["PROTOCOLS", "open_protocol", "protocol_for"]

PROTOCOLS: dict[str, Callable[[], Any]] = {
    "casia-b": CasiaB,
    "ou-mvlp": OuMvlp,
    "ou-mvlp-removed": lambda: OuMvlp("remove"),
    "grew": Grew,
    "gait3d": Gait3D,
    "cross-view": CrossView,
    "one-gallery": OneGallery,
}
"""How each protocol is made."""


def open_protocol(name: str, probes: Collection[str] = ()) -> Any:
    """The protocol of a name.

    Raises
    ------
    FewerError
        With the nearest name.

    Examples
    --------
    >>> open_protocol("casia").name
    Traceback (most recent call last):
    fewer.core.errors.FewerError: unknown protocol 'casia'; did you mean 'casia-b'?
    """
    if name not in PROTOCOLS:
        raise FewerError(f"unknown protocol {name!r}{near_match(name, PROTOCOLS)}")
    return Gait3D(probes) if name == "gait3d" else PROTOCOLS[name]()


def protocol_for(walks: Walks, probes: Collection[str] = ()) -> Any:
    """The protocol that the names of sequences speak for; where none does, one gallery, across views if there are any.

    A list of probes names persons that judge. Of others, such as those that choose the best state of a training, the
    first sequence of each is the probe.
    """
    if probes:
        listed = Gait3D(probes)
        return listed if listed.probes_in(walks).any() else Gait3D()
    single = OneGallery()
    for name in ("casia-b", "ou-mvlp", "grew"):
        protocol = PROTOCOLS[name]()
        if protocol.fits(walks):
            alone = name == "casia-b" and single.fits(walks) and len(walks.views) == 1
            both = alone and len({protocol.is_gallery(walk) for walk in walks.walks}) == 2
            return single if both else protocol
    return single if single.fits(walks) else CrossView()
