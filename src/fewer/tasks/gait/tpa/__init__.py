"""Temporal Periodic Alignment: a module over the time axis that plugs into every backbone before temporal pooling."""

from fewer.tasks.gait.tpa.afpe import AFPE
from fewer.tasks.gait.tpa.module import CHOICES, TPA, TPAConfig
from fewer.tasks.gait.tpa.tam import TAM

__all__ = ["AFPE", "CHOICES", "TAM", "TPA", "TPAConfig"]
