"""System 2, DM3D: a simulated street and the scan that a LiDAR takes of it, for detectors that are then pruned.

Train a detector on such streets with `fewer train`, and prune it with `--preset dm3d` (docs/detect3d.md).
Run it:  python examples/lidar_scan.py
"""

from __future__ import annotations

import numpy as np
from _picture import BLUE, GREY, ORANGE, keep, panels

from fewer.tasks.detect3d.boxes import bev_corners
from fewer.tasks.detect3d.simulator.scan import scan
from fewer.tasks.detect3d.simulator.sensor import SENSORS
from fewer.tasks.detect3d.simulator.streets import make_scene


def main() -> None:
    rng = np.random.default_rng(3)
    sensor = SENSORS["hdl-64"].thinned(4).ahead()
    scene = make_scene(rng, sensor.height)
    made = scan(scene, sensor, rng)
    print(f"{len(made.points)} points, {len(scene.boxes)} road users, {int((made.seen > 0).sum())} of them in sight")

    figure, (panel,) = panels(1, height=3.4)
    on_something = made.owner >= 0
    for chosen, colour in ((~on_something, GREY), (on_something, ORANGE)):
        panel.plot(made.points[chosen, 0], made.points[chosen, 1], ".", markersize=1, color=colour, rasterized=True)
    for box, seen in zip(scene.boxes, made.seen, strict=True):
        if seen:
            around = bev_corners(box[None])[0]
            panel.plot(*np.vstack([around, around[:1]]).T, color=BLUE, linewidth=1)
    panel.set(xlim=(0, 50), ylim=(-20, 20), xlabel="metres ahead", ylabel="metres to the left", aspect="equal")
    keep(figure, __file__, "png")


if __name__ == "__main__":
    main()
