"""How gait recognition is scored: one object for each protocol of the field, exact about what is left out."""

from fewer.tasks.gait.protocols.distance import nearest, part_distances, ranks_of_positives
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.table import PROTOCOLS, open_protocol, protocol_for

__all__ = [
    "PROTOCOLS",
    "Walk",
    "Walks",
    "nearest",
    "open_protocol",
    "part_distances",
    "protocol_for",
    "ranks_of_positives",
]
