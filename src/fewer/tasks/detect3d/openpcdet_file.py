"""Configuration files of OpenPCDet, read into the description of a detector; what is not known here is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.reading import read_text
from fewer.tasks.detect3d.networks.config import ALL_POINTS, Anchor, DetectorConfig, published_config
from fewer.tasks.detect3d.networks.second_stage import COUNTS, RADII

__all__ = ["camera_view", "config_of_file"]

_KITTI = {"POINT_CLOUD_RANGE": [0, -40, -3, 70.4, 40, 1], "FOV_POINTS_ONLY": True, "cells": ([0.05, 0.05, 0.1], 5)}
_NUSCENES = {"POINT_CLOUD_RANGE": [-51.2, -51.2, -5, 51.2, 51.2, 3], "cells": ([0.1, 0.1, 0.2], 10)}
_ONCE = {"POINT_CLOUD_RANGE": [-75.2, -75.2, -5, 75.2, 75.2, 3], "cells": ([0.1, 0.1, 0.2], 5)}
_COLUMNS = ["x", "y", "z", "intensity"]
_BASES: dict[str, tuple[Mapping[str, Any], list[str]]] = {
    "kitti_dataset.yaml": (_KITTI, _COLUMNS),
    "nuscenes_dataset.yaml": (_NUSCENES, [*_COLUMNS, "timestamp"]),
    "once_dataset.yaml": (_ONCE, _COLUMNS),
}
"""Files that configurations build on, for when they do not lie beside them: field, cells with their points, columns."""

_NETWORKS = {"PointPillar": "pointpillars", "SECONDNet": "second", "CenterPoint": "centerpoint", "PVRCNN": "pv-rcnn"}


def config_of_file(path: str | Path) -> DetectorConfig:
    """The detector that a configuration file of OpenPCDet describes.

    Parameters
    ----------
    path
        A ``.yaml`` file of ``tools/cfgs``. The file of the data set that it builds on is looked for in the folders
        above; those of KITTI, nuScenes and ONCE are known.

    Raises
    ------
    FewerError
        When the file cannot be read, or describes what is not known here.

    Examples
    --------
    >>> config_of_file("tools/cfgs/kitti_models/second.yaml").network  # doctest: +SKIP
    'second'
    """
    path = Path(path)
    whole = _read(path)
    try:
        return _config(whole, _data_of(whole, path))
    except KeyError as error:
        raise FewerError(f"{path} lacks {error.args[0]}") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FewerError(f"{path} is no configuration of OpenPCDet that is understood here: {reason}") from None
    except FewerError as error:
        raise FewerError(f"{path}: {error}") from None


def camera_view(path: str | Path) -> bool:
    """Whether a configuration file says that the network sees what the camera sees."""
    path = Path(path)
    return bool(_data_of(_read(path), path).get("FOV_POINTS_ONLY"))


def _read(path: Path) -> dict[str, Any]:
    found = _mapping(path)
    if not isinstance(found.get("MODEL"), dict):
        raise FewerError(f"{path} is no configuration of OpenPCDet: it has no MODEL")
    return found


def _data_of(whole: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The part about the data: that of the file it builds on, changed by its own."""
    own = whole.get("DATA_CONFIG")
    if not isinstance(own, Mapping):
        raise FewerError(f"{path} is no configuration of OpenPCDet: it has no DATA_CONFIG")
    base = own.get("_BASE_CONFIG_")
    if base is None:
        return dict(own)
    there = next((place / str(base) for place in path.resolve().parents if (place / str(base)).is_file()), None)
    if there is not None:
        return {**_mapping(there), **own}
    known = _BASES.get(Path(str(base)).name)
    if known is None:
        raise FewerError(f"{path} builds on {base}, which is not there; put that file beside it, in the same folders")
    facts, columns = known
    return {**facts, "POINT_FEATURE_ENCODING": {"used_feature_list": columns}, **own}


def _mapping(path: Path) -> dict[str, Any]:
    import yaml  # comes with accelerate

    try:
        found = yaml.safe_load(read_text(path, what="configuration"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FewerError(f"{path} is no YAML file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise FewerError(f"{path} is no configuration of OpenPCDet")
    return found


def _config(whole: Mapping[str, Any], data: Mapping[str, Any]) -> DetectorConfig:
    model, names = whole["MODEL"], tuple(str(name) for name in whole["CLASS_NAMES"])
    kind = model["NAME"]
    if kind not in _NETWORKS:
        raise FewerError(f"the network {kind} is not known here; known are {', '.join(_NETWORKS)}")
    pillars = "BACKBONE_3D" not in model
    network: Any = "centerpoint-pillar" if pillars and kind == "CenterPoint" else _NETWORKS[kind]
    columns = list(data["POINT_FEATURE_ENCODING"]["used_feature_list"])
    if columns[:4] != _COLUMNS or columns[4:] not in ([], ["timestamp"]):
        raise FewerError(f"its points have the columns {', '.join(map(str, columns))}, which are not known here")
    values = published_config(network, names).model_dump()
    # what a published configuration of another data set says does not hold for this one
    ages = columns[4:] == ["timestamp"]
    values |= {"features": len(columns), "ages": ages, "brightest": 255.0 if ages else 1.0, "groups": ()}
    values |= {"reach": tuple(data["POINT_CLOUD_RANGE"]), "velocity": False}
    values |= _cells(data, model["VFE"])
    values |= _volume(model["BACKBONE_3D"]) if not pillars else {}
    values |= _flat(model["BACKBONE_2D"])
    values |= _head(model["DENSE_HEAD"], names)
    if network == "pv-rcnn":
        values |= _second_stage(model)
    values |= _ending(model["DENSE_HEAD"].get("POST_PROCESSING") or model["POST_PROCESSING"])
    return DetectorConfig.of(values)


def _cells(data: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    size, most = data.get("cells", (None, ALL_POINTS))
    for step in data.get("DATA_PROCESSOR", ()):
        size, most = step.get("VOXEL_SIZE", size), step.get("MAX_POINTS_PER_VOXEL", most)
    if size is None:
        raise KeyError("VOXEL_SIZE")
    dynamic = str(features["NAME"]).startswith("Dyn")
    found: dict[str, Any] = {"voxel": tuple(size), "most_points": ALL_POINTS if dynamic else most}
    if "Pillar" not in features["NAME"]:
        return found
    if features.get("WITH_DISTANCE") or not features.get("USE_ABSLOTE_XYZ", True) or not features.get("USE_NORM", True):
        raise FewerError("its pillars are described in a way that is not known here")
    *before, last = features["NUM_FILTERS"]
    return {**found, "wide": tuple(before), "pillar": last, "padded": not dynamic}


def _volume(stages: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"VoxelBackBone8x": (False, (16, 32, 64, 64, 128)), "VoxelResBackBone8x": (True, (16, 32, 64, 128, 128))}
    if stages["NAME"] not in kinds:
        raise FewerError(f"the sparse part {stages['NAME']} is not known here; known are {', '.join(kinds)}")
    residual, channels = kinds[stages["NAME"]]
    return {"residual": residual, "channels": channels}


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["NAME"] != "BaseBEVBackbone":
        raise FewerError(f"the part {part['NAME']} is not known here; known is BaseBEVBackbone")
    keys = {"layers": "LAYER_NUMS", "strides": "LAYER_STRIDES", "filters": "NUM_FILTERS"}
    keys |= {"up_strides": "UPSAMPLE_STRIDES", "up_filters": "NUM_UPSAMPLE_FILTERS"}
    return {name: tuple(part[key]) for name, key in keys.items()}


def _head(head: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    if head["NAME"] == "AnchorHeadSingle":
        wanted = head.get("TARGET_ASSIGNER_CONFIG", {})
        ups, downs = wanted.get("MATCHED_THRESHOLDS", ()), wanted.get("UNMATCHED_THRESHOLDS", ())
        given = head["ANCHOR_GENERATOR_CONFIG"]
        limits = [(up, down) for up, down in zip(ups, downs, strict=True)] or [(0.6, 0.45)] * len(given)
        return {"anchors": tuple(_anchor(one, *two).model_dump() for one, two in zip(given, limits, strict=True))}
    if head["NAME"] != "CenterHead":
        raise FewerError(f"the head {head['NAME']} is not known here; known are AnchorHeadSingle and CenterHead")
    branches = head["SEPARATE_HEAD_CFG"]["HEAD_DICT"]
    if head.get("NUM_HM_CONV", 2) != 2 or any(one.get("num_conv", 2) != 2 for one in branches.values()):
        raise FewerError("the branches of its centre head have another number of layers than two")
    groups = tuple(tuple(group) for group in head["CLASS_NAMES_EACH_HEAD"])
    if {name for group in groups for name in group} - set(names):
        raise FewerError("CLASS_NAMES_EACH_HEAD names classes that are not in CLASS_NAMES")
    found = {"groups": groups if len(groups) > 1 else (), "velocity": "vel" in branches}
    return {**found, "shared": head["SHARED_CONV_CHANNEL"], "bias_before_norm": head.get("USE_BIAS_BEFORE_NORM", False)}


def _anchor(one: Mapping[str, Any], matched: float, unmatched: float) -> Anchor:
    single = len(one["anchor_sizes"]) == 1 and len(one["anchor_bottom_heights"]) == 1
    if not single or list(one["anchor_rotations"]) != [0, 1.57] or one.get("align_center"):
        raise FewerError("a class has other priors than one size, one height and two directions (0 and 1.57)")
    matched, unmatched = one.get("matched_threshold", matched), one.get("unmatched_threshold", unmatched)
    size, bottom = tuple(one["anchor_sizes"][0]), one["anchor_bottom_heights"][0]
    return Anchor.of({"size": size, "bottom": bottom, "matched": matched, "unmatched": unmatched})


def _second_stage(model: Mapping[str, Any]) -> dict[str, Any]:
    points, boxes = model["PFE"], model["ROI_HEAD"]
    pool, fully = boxes["ROI_GRID_POOL"], {*boxes["SHARED_FC"], *boxes["CLS_FC"], *boxes["REG_FC"]}
    around = {name: one for name, one in points["SA_LAYER"].items() if name in RADII}
    usual = all(
        tuple(around[name]["POOL_RADIUS"]) == RADII[name] and tuple(around[name]["NSAMPLE"]) == COUNTS[name]
        for name in RADII
    )
    same = len(fully) == 1 and tuple(pool["POOL_RADIUS"]) == (0.8, 1.6) and tuple(pool["NSAMPLE"]) == (16, 16)
    if not usual or not same or points.get("SAMPLE_METHOD", "FPS") != "FPS":
        raise FewerError("its second stage looks at other neighbours than PV-RCNN's for KITTI")
    found = {"keypoints": points["NUM_KEYPOINTS"], "point_features": points["NUM_OUTPUT_FEATURES"]}
    found |= {
        "point_fc": model["POINT_HEAD"]["CLS_FC"][0],
        "proposals": boxes["NMS_CONFIG"]["TEST"]["NMS_POST_MAXSIZE"],
    }
    return {**found, "roi_grid": pool["GRID_SIZE"], "roi_channels": pool["MLPS"][0][-1], "roi_fc": fully.pop()}


def _ending(last: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of boxes that lie on each other."""
    again = last.get("NMS_CONFIG", {})
    return {"score": last["SCORE_THRESH"], "overlap": again["NMS_THRESH"], "most_boxes": again["NMS_POST_MAXSIZE"]}
