"""What a detector is made of; the sizes of OpenPCDet's configurations, and small ones for two cores."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from fewer.core.strict import StrictSettings

__all__ = [
    "ALL_POINTS",
    "ANCHORS",
    "NETWORKS",
    "NUSCENES",
    "NUSCENES_GROUPS",
    "Anchor",
    "DetectorConfig",
    "NetworkName",
    "has_prior",
    "published_config",
    "short_config",
    "small_config",
]

NetworkName = Literal["pointpillars", "second", "centerpoint-pillar", "centerpoint", "pv-rcnn"]

NETWORKS: dict[str, str] = {
    "pointpillars": "pillars and anchors (Lang et al., CVPR 2019)",
    "centerpoint-pillar": "pillars and centres (Yin, Zhou and Krähenbühl, CVPR 2021)",
    "second": "sparse voxels and anchors (Yan, Mao and Li, Sensors 2018)",
    "centerpoint": "sparse voxels and centres (Yin, Zhou and Krähenbühl, CVPR 2021)",
    "pv-rcnn": "sparse voxels, keypoints and a second stage (Shi et al., CVPR 2020)",
}


class Anchor(StrictSettings):
    """The prior of one class.

    Attributes
    ----------
    size
        Length, width, height in metres.
    bottom
        Height of its underside in the frame of the sensor, metres.
    matched, unmatched
        Overlaps from above that make an anchor positive, or negative.
    """

    size: tuple[float, float, float]
    bottom: float
    matched: float = Field(default=0.5, gt=0, lt=1)
    unmatched: float = Field(default=0.35, gt=0, lt=1)


ANCHORS: dict[str, Anchor] = {
    "Car": Anchor(size=(3.9, 1.6, 1.56), bottom=-1.78, matched=0.6, unmatched=0.45),
    "Pedestrian": Anchor(size=(0.8, 0.6, 1.73), bottom=-0.6),
    "Cyclist": Anchor(size=(1.76, 0.6, 1.73), bottom=-0.6),
}
"""The priors of OpenPCDet's KITTI configurations."""

NUSCENES_GROUPS: tuple[tuple[str, ...], ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
"""Classes of nuScenes as OpenPCDet's centre heads share them."""

ALL_POINTS = 2**31 - 1
"""Limit of the points of a cell where there is none."""

NUSCENES = tuple(name for group in NUSCENES_GROUPS for name in group)

_LIKE = {"pedestrian": "Pedestrian", "person_sitting": "Pedestrian", "person": "Pedestrian"} | dict.fromkeys(
    ("cyclist", "bicycle", "motorcycle"), "Cyclist"
)
"""Classes of other data sets, in lower case, and whose prior they take; all others take that of a car."""


def has_prior(name: str) -> bool:
    """Whether the size of a class is known before any of its objects is seen.

    Examples
    --------
    >>> has_prior("car"), has_prior("bus")
    (True, False)
    """
    return name.lower() in _LIKE or name.lower() in ("car", "van", "vehicle")


class DetectorConfig(StrictSettings):
    """A detector; everything that decides its parameters and its grid.

    Examples
    --------
    >>> config = small_config("pointpillars", ("Car",))
    >>> config.grid, DetectorConfig.of(config.model_dump()).grid == config.grid
    ((128, 128, 1), True)
    """

    network: NetworkName
    classes: tuple[str, ...] = Field(min_length=1, description="Names of the classes, in the order of the outputs.")
    reach: tuple[float, float, float, float, float, float] = Field(
        description="Box of the scan that is looked at: x, y, z from, x, y, z to; metres."
    )
    voxel: tuple[float, float, float] = Field(description="Cell along x, y, z; metres.")
    features: int = Field(default=4, ge=3, description="Columns of a point that the network reads.")
    most_points: int = Field(default=32, ge=1, description="Points of one cell that count.")
    pillar: int = Field(default=64, ge=1, description="Features of a pillar.")
    wide: tuple[int, ...] = Field(default=(), description="Widths of the layers of a pillar before its last one.")
    padded: bool = Field(default=True, description="Whether a zero point counts in pillars that are not full.")
    brightest: float = Field(
        default=1.0, gt=0, description="What the network was trained to see as an intensity of 1; 255 of nuScenes'."
    )
    ages: bool = Field(
        default=False, description="Whether the fifth value of a point is its age in seconds; 0 in a single scan."
    )
    channels: tuple[int, int, int, int, int] = Field(
        default=(16, 32, 64, 64, 128), description="Channels of the sparse stages and of what they put out."
    )
    residual: bool = Field(default=False, description="Residual blocks in the sparse stages.")
    layers: tuple[int, ...] = Field(default=(3, 5, 5), description="Further convolutions of each stage from above.")
    strides: tuple[int, ...] = (2, 2, 2)
    filters: tuple[int, ...] = (64, 128, 256)
    up_strides: tuple[float, ...] = (1, 2, 4)
    up_filters: tuple[int, ...] = (128, 128, 128)
    anchors: tuple[Anchor, ...] = Field(default=(), description="Of anchor heads, one for each class.")
    anchors_at: Literal["edges", "centres"] = Field(
        default="edges", description="First and last anchor on the edges of the grid, or every one amid its cell."
    )
    norm_momentum: float | None = Field(
        default=None, gt=0, le=1, description="Share of a batch in the statistics of norms; the published ones if None."
    )
    shared: int = Field(default=64, ge=1, description="Channels that the branches of a centre head share.")
    around: int = Field(
        default=0, ge=0, description="Cells to each side of a centre that learn the box too, of a centre head."
    )
    bias_before_norm: bool = Field(default=False, description="Whether convolutions of a centre head have a bias.")
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="Classes of each centre head; one by default.")
    velocity: bool = Field(default=False, description="Whether a centre head puts out velocities.")
    keypoints: int = Field(default=2048, ge=1, description="Of PV-RCNN.")
    proposals: int = Field(default=100, ge=1, description="Of PV-RCNN's second stage.")
    point_features: int = Field(default=128, ge=1, description="Features of a keypoint, of PV-RCNN.")
    point_fc: int = Field(default=256, ge=1, description="Width of PV-RCNN's point head.")
    roi_grid: int = Field(default=6, ge=1, description="Points along each side of a proposal, of PV-RCNN.")
    roi_channels: int = Field(default=64, ge=1, description="Features of such a point at each of two radii.")
    roi_fc: int = Field(default=256, ge=1, description="Width of PV-RCNN's second stage.")
    score: float = Field(default=0.1, ge=0, le=1, description="Least confidence of a detection.")
    overlap: float = Field(default=0.1, gt=0, le=1, description="Overlap from above at which the weaker box goes.")
    vote: float | None = Field(
        default=None, gt=0, lt=1, description="Overlap from which on a box that goes has a say where the other stands."
    )
    most_boxes: int = Field(default=100, ge=1, description="Detections of one scan at most.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.layers) == len(self.strides) == len(self.filters):
            raise ValueError("layers, strides and filters need one entry for each stage")
        if len(self.up_strides) != len(self.up_filters):
            raise ValueError("up_strides and up_filters need one entry for each stage")
        if self.has_anchors and len(self.anchors) != len(self.classes):
            raise ValueError(f"{self.network} needs one anchor for each of {len(self.classes)} classes")
        if self.padded and self.wide:
            raise ValueError("pillars of several layers are not padded")
        if self.ages and self.features != 5:
            raise ValueError("the age of a point is its fifth value, so that features is 5")
        if any(b <= a for a, b in zip(self.reach[:3], self.reach[3:], strict=True)):
            raise ValueError("reach needs its lower corner first")
        return self

    @property
    def has_anchors(self) -> bool:
        """Whether the head places anchors."""
        return not self.network.startswith("centerpoint")

    @property
    def on_pillars(self) -> bool:
        """Whether cells are pillars."""
        return self.network in ("pointpillars", "centerpoint-pillar")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Cells along x, y, z."""
        sides = zip(self.reach[:3], self.reach[3:], self.voxel, strict=True)
        return tuple(round((b - a) / v) for a, b, v in sides)  # type: ignore[return-value]

    @property
    def head_stride(self) -> int:
        """Cells of the grid that one cell of the head stands for, along x and y."""
        # all stages from above are brought to the side of the first one, divided by its own factor
        before = 1 if self.on_pillars else 8
        return round(before * self.strides[0] / self.up_strides[0])

    @property
    def head_grid(self) -> tuple[int, int]:
        """Cells of the head along x and y."""
        x, y, _ = self.grid
        return math.ceil(x / self.head_stride), math.ceil(y / self.head_stride)


def _anchored(classes: tuple[str, ...]) -> tuple[Anchor, ...]:
    return tuple(ANCHORS[_LIKE.get(name.lower(), "Car")] for name in classes)


def published_config(network: NetworkName, classes: tuple[str, ...] = tuple(ANCHORS)) -> DetectorConfig:
    """The sizes that OpenPCDet publishes weights of: KITTI's for networks with anchors, nuScenes' for CenterPoint.

    With the ten classes of nuScenes (``NUSCENES``) a centre head has their six groups, else one group.

    Examples
    --------
    >>> published_config("second").grid
    (1408, 1600, 40)
    >>> len(published_config("centerpoint", NUSCENES).groups)
    6
    """
    kitti: dict[str, Any] = {"network": network, "classes": classes, "anchors": _anchored(classes)}
    flat: dict[str, Any] = {"layers": (5, 5), "strides": (1, 2), "filters": (128, 256)}
    flat |= {"up_strides": (1, 2), "up_filters": (256, 256), "most_points": 5}
    if network == "pointpillars":
        return DetectorConfig.of({**kitti, "reach": (0, -39.68, -3, 69.12, 39.68, 1), "voxel": (0.16, 0.16, 4)})
    if network in ("second", "pv-rcnn"):
        return DetectorConfig.of({**kitti, **flat, "reach": (0, -40, -3, 70.4, 40, 1), "voxel": (0.05, 0.05, 0.1)})
    nuscenes: dict[str, Any] = {"network": network, "classes": classes, "features": 5, "velocity": True}
    nuscenes |= {"bias_before_norm": True, "brightest": 255.0, "ages": True, "overlap": 0.01, "most_boxes": 500}
    nuscenes |= {"groups": NUSCENES_GROUPS if classes == NUSCENES else ()}
    if network == "centerpoint-pillar":
        shape = {"reach": (-51.2, -51.2, -5, 51.2, 51.2, 3), "voxel": (0.2, 0.2, 8), "up_strides": (0.5, 1, 2)}
        return DetectorConfig.of({**nuscenes, **shape, "wide": (64,), "padded": False, "most_points": ALL_POINTS})
    shape = {"reach": (-54, -54, -5, 54, 54, 3), "voxel": (0.075, 0.075, 0.2), "most_points": 10}
    return DetectorConfig.of({**nuscenes, **flat, **shape, "residual": True, "channels": (16, 32, 64, 128, 128)})


def small_config(network: NetworkName, classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")) -> DetectorConfig:
    """A network of the same plan for two cores: 46 metres ahead, coarser cells, fewer channels.

    Examples
    --------
    >>> small_config("second").grid
    (256, 256, 40)
    """
    # the priors stand on the road, which lies at -1.73 m; a cell of the head is almost half as wide as a car, so that
    # at the published overlaps of 0.6 and 0.45 most cars would have no prior but the one that is forced on them
    anchors = _anchored(classes) if not network.startswith("centerpoint") else ()
    anchors = tuple(a.model_copy(update={"bottom": -1.73, "matched": 0.5, "unmatched": 0.35}) for a in anchors)
    common: dict[str, Any] = {"network": network, "classes": classes, "anchors": anchors, "shared": 32}
    # short trainings would end with the statistics of their beginning at the published momentum of 0.01
    common |= {"anchors_at": "centres", "norm_momentum": 0.1}
    # several cells of a coarse grid find the same object: their mean stands better than the most confident one; so
    # cells beside a centre learn its box as well, which short trainings gain from on its own
    common |= {"vote": 0.6, "around": 0 if anchors else 1}
    if network in ("pointpillars", "centerpoint-pillar"):
        shape = {"reach": (0, -23.04, -3, 46.08, 23.04, 1), "voxel": (0.36, 0.36, 4), "pillar": 32}
        flat = {"layers": (2, 3, 3), "filters": (32, 64, 64), "up_filters": (32, 32, 32), "up_strides": (1, 2, 4)}
        return DetectorConfig.of({**common, **shape, **flat})
    shape = {"reach": (0, -23.04, -3, 46.08, 23.04, 1), "voxel": (0.18, 0.18, 0.1), "channels": (8, 16, 32, 32, 32)}
    # three halvings would leave cells of 1.4 m; the head works at half of that
    flat = {"layers": (2, 2), "strides": (1, 2), "filters": (64, 64), "up_strides": (2, 4), "up_filters": (32, 32)}
    more = {"most_points": 5, "residual": network == "centerpoint", "keypoints": 512, "proposals": 48}
    more |= {"point_features": 32, "point_fc": 64, "roi_grid": 4, "roi_channels": 16, "roi_fc": 64}
    return DetectorConfig.of({**common, **shape, **flat, **more})


def short_config(network: NetworkName, classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")) -> DetectorConfig:
    """The small network with finer cells on a smaller field: 36 metres ahead, 18 to each side.

    Examples
    --------
    >>> short_config("pointpillars").grid, short_config("second").grid
    ((112, 112, 1), (224, 224, 40))
    """
    config = small_config(network, classes)
    side = 0.32 if config.on_pillars else 0.16
    shape = {"reach": (0, -17.92, -3, 35.84, 17.92, 1), "voxel": (side, side, config.voxel[2])}
    return config.model_copy(update=shape)
