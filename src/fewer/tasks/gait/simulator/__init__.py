"""Simulated walkers: bodies of capsules that move as people were recorded to move, seen by eleven cameras.

Everything that comes from here is simulated, and is called so wherever a number is shown.
"""

from fewer.tasks.gait.simulator.walkers import VIEWS, Walkers, casia_kinds

__all__ = ["VIEWS", "Walkers", "casia_kinds"]
