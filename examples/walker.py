"""System 6, Temporal Periodic Alignment: a simulated walker, and the period of the walk found in the silhouettes.

Run it:  python examples/walker.py
"""

from __future__ import annotations

import torch
from _picture import BLUE, GREY, keep, panels

from fewer.tasks.gait.simulator.walkers import Walkers
from fewer.tasks.gait.tpa.spectrum import find_rhythm


def main() -> None:
    walk = Walkers(seed=1).sequence(0, "nm-01", "090", frames=75)
    spread = torch.from_numpy((walk.frames[:, 52:] > 0).any(1).sum(1).astype("float32"))  # width of the legs
    rhythm = find_rhythm(spread[None], torch.tensor([len(spread)]))
    found = 2 * float(rhythm.period)  # the legs are apart twice in a stride
    print(f"a stride takes {walk.period:.1f} frames; found from the silhouettes: {found:.1f}")

    figure, axes = panels(6, 2, height=3.2)
    for place, panel in enumerate(axes[:6]):
        panel.imshow(walk.frames[place * 4], cmap="gray", interpolation="nearest")
        panel.set_axis_off()
    for panel in axes[6:]:
        panel.remove()
    below = figure.add_subplot(2, 1, 2)
    below.plot(spread, color=BLUE)
    for start in range(0, len(spread), max(1, round(found))):
        below.axvline(start, color=GREY, linewidth=0.8)
    below.set(xlabel="frame", ylabel="width of the legs", yticks=[])
    keep(figure, __file__, "png")


if __name__ == "__main__":
    main()
