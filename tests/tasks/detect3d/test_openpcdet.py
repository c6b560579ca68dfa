"""Checkpoints and configuration files as OpenPCDet publishes them, made into run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fewer
from fewer.cli.main import main
from fewer.core.errors import FewerError
from fewer.models.spec import load_model
from fewer.tasks.detect3d.loaded import columns_for, scan_tensor
from fewer.tasks.detect3d.networks import build_network, published_state
from fewer.tasks.detect3d.networks.config import NUSCENES, published_config, short_config
from fewer.tasks.detect3d.networks.published import config_of_state
from fewer.tasks.detect3d.openpcdet import open_published, published_run
from fewer.tasks.detect3d.openpcdet_file import camera_view, config_of_file
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.starting import config_to_start_from
from fewer.tasks.detect3d.training import save_detector

SECOND = """
CLASS_NAMES: ['Car', 'Bus']
DATA_CONFIG:
    _BASE_CONFIG_: cfgs/dataset_configs/once_dataset.yaml
MODEL:
    NAME: SECONDNet
    VFE: {NAME: MeanVFE}
    BACKBONE_3D: {NAME: VoxelBackBone8x}
    BACKBONE_2D: {NAME: BaseBEVBackbone, LAYER_NUMS: [5, 5], LAYER_STRIDES: [1, 2], NUM_FILTERS: [128, 256],
                  UPSAMPLE_STRIDES: [1, 2], NUM_UPSAMPLE_FILTERS: [256, 256]}
    DENSE_HEAD:
        NAME: AnchorHeadSingle
        ANCHOR_GENERATOR_CONFIG: [
            {'class_name': 'Car', 'anchor_sizes': [[4.38, 1.87, 1.59]], 'anchor_rotations': [0, 1.57],
             'anchor_bottom_heights': [-1.71], 'align_center': False, 'matched_threshold': 0.6,
             'unmatched_threshold': 0.45},
            {'class_name': 'Bus', 'anchor_sizes': [[11.11, 2.88, 3.41]], 'anchor_rotations': [0, 1.57],
             'anchor_bottom_heights': [-1.74], 'align_center': False, 'matched_threshold': 0.55,
             'unmatched_threshold': 0.4}]
    POST_PROCESSING: {SCORE_THRESH: 0.1, NMS_CONFIG: {NMS_THRESH: 0.01, NMS_POST_MAXSIZE: 500}}
"""

CENTRES = """
CLASS_NAMES: ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
              'pedestrian', 'traffic_cone']
DATA_CONFIG:
    _BASE_CONFIG_: cfgs/dataset_configs/nuscenes_dataset.yaml
    POINT_CLOUD_RANGE: [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
    DATA_PROCESSOR: [{NAME: transform_points_to_voxels_placeholder, VOXEL_SIZE: [0.2, 0.2, 8.0]}]
MODEL:
    NAME: CenterPoint
    VFE: {NAME: DynPillarVFE, WITH_DISTANCE: False, USE_ABSLOTE_XYZ: True, USE_NORM: True, NUM_FILTERS: [64, 64]}
    BACKBONE_2D: {NAME: BaseBEVBackbone, LAYER_NUMS: [3, 5, 5], LAYER_STRIDES: [2, 2, 2], NUM_FILTERS: [64, 128, 256],
                  UPSAMPLE_STRIDES: [0.5, 1, 2], NUM_UPSAMPLE_FILTERS: [128, 128, 128]}
    DENSE_HEAD:
        NAME: CenterHead
        CLASS_NAMES_EACH_HEAD: [['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'],
                                ['motorcycle', 'bicycle'], ['pedestrian', 'traffic_cone']]
        SHARED_CONV_CHANNEL: 64
        USE_BIAS_BEFORE_NORM: True
        NUM_HM_CONV: 2
        SEPARATE_HEAD_CFG: {HEAD_DICT: {'center': {'num_conv': 2}, 'vel': {'num_conv': 2}}}
        POST_PROCESSING: {SCORE_THRESH: 0.1, NMS_CONFIG: {NMS_THRESH: 0.01, NMS_POST_MAXSIZE: 500}}
    POST_PROCESSING: {RECALL_THRESH_LIST: [0.3]}
"""


@pytest.fixture
def file(tmp_path):
    def make(text: str = SECOND, name: str = "second.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def test_a_configuration_file_says_what_weights_do_not(file):
    config = config_of_file(file())
    assert config.network == "second" and config.classes == ("Car", "Bus")
    assert config.grid == (1504, 1504, 40) and config.most_points == 5 and config.overlap == 0.01
    assert config.anchors[1].size == (11.11, 2.88, 3.41) and config.anchors[1].matched == 0.55
    assert not camera_view(file())
    assert config_of_file(file(CENTRES)) == published_config("centerpoint-pillar", NUSCENES)


def test_the_data_sets_own_file_is_found_above(file, tmp_path):
    base = tmp_path / "cfgs" / "dataset_configs"
    base.mkdir(parents=True)
    (base / "kitti_dataset.yaml").write_text(
        "POINT_CLOUD_RANGE: [0, -40, -3, 80, 40, 1]\nFOV_POINTS_ONLY: True\n"
        "POINT_FEATURE_ENCODING: {used_feature_list: ['x', 'y', 'z', 'intensity']}\n"
        "DATA_PROCESSOR: [{VOXEL_SIZE: [0.05, 0.05, 0.1], MAX_POINTS_PER_VOXEL: 5}]\n"
    )
    path = file(SECOND.replace("once_dataset", "kitti_dataset"))
    assert config_of_file(path).grid == (1600, 1600, 40) and camera_view(path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SECONDNet", "VoxelNeXt", "VoxelNeXt is not known here; known are PointPillar"),
        ("once_dataset", "waymo_dataset", "builds on cfgs/dataset_configs/waymo_dataset.yaml, which is not there"),
        ("[0, 1.57]", "[0, 0.8]", "other priors than one size"),
        ("NUM_FILTERS: [128, 256],", "", "lacks NUM_FILTERS"),
        ("[128, 256],", "[many],", "filters.0=.many.: must be a valid integer"),
        ("NUM_FILTERS: [128, 256],", "NUM_FILTERS: 128,", "is no configuration of OpenPCDet that is understood"),
        ("MODEL:", "MODELS:", "it has no MODEL"),
        ("CLASS_NAMES: [", "CLASS_NAMES: [[", "is no YAML file"),
        ("VoxelBackBone8x", "VoxelBackBone16x", "the sparse part VoxelBackBone16x is not known"),
    ],
)
def test_what_a_configuration_file_says_wrong(file, old, new, told):
    with pytest.raises(FewerError, match=told) as error:
        config_of_file(file(SECOND.replace(old, new)))
    assert "second.yaml" in str(error.value) and "\n" not in str(error.value)


def _saved(path: Path, network: str, classes: tuple[str, ...], state_of=published_state) -> Path:
    torch.manual_seed(0)
    torch.save({"model_state": state_of(build_network(published_config(network, classes))), "epoch": 80}, path)
    return path


def test_a_published_checkpoint_becomes_a_run(tmp_path):
    checkpoint = _saved(tmp_path / "pointpillar.pth", "pointpillars", ("Car", "Pedestrian", "Cyclist"))
    run = published_run(checkpoint, tmp_path / "run")
    loaded = load_model(str(run))
    assert loaded.meta["detect3d"]["view"] == "camera" and loaded.model.config.network == "pointpillars"
    assert all(torch.equal(a, b) for a, b in zip(
        loaded.model.state_dict().values(), open_published(checkpoint).state_dict().values(), strict=True
    ))  # fmt: skip
    with pytest.raises(FewerError, match="already holds a run"):
        published_run(checkpoint, run)
    with pytest.raises(FewerError, match="knows 3 classes, and 1 are named"):
        open_published(checkpoint, classes=["Car"])


def test_groups_and_columns_of_nuscenes(tmp_path):
    checkpoint = _saved(tmp_path / "centerpoint.pth", "centerpoint-pillar", NUSCENES)
    net = open_published(checkpoint)
    assert [len(group) for group in net.config.groups] == [1, 2, 2, 1, 2, 2] and net.config.classes == NUSCENES
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-50, 50, (400, 3)) * (1, 1, 0.02), rng.random(400), rng.integers(0, 32, 400)])
    scan = scan_tensor(points, net.config)
    assert float(scan[:, 3].max()) > 200 and not bool(scan[:, 4].any())  # 0 to 255; rings are no ages
    aged = columns_for(np.column_stack([points[:, :4], np.full(400, 0.05)]), net.config)
    assert np.allclose(aged[:, 4], 0.05)
    assert columns_for(points[:, :4], net.config).shape == (400, 5)
    found = net.detect(scan, score=0.0)[0]
    assert len(set(found.classes)) > 1 and found.velocity is not None
    run = published_run(checkpoint, tmp_path / "run")
    assert json.loads((run / "recipe.json").read_text())["meta"]["detect3d"]["view"] == "full"


def test_weights_that_are_of_nothing_known():
    with pytest.raises(FewerError, match="no network that is known here"):
        config_of_state({"conv1.weight": torch.zeros(1)})
    state = {"backbone_2d.blocks.0.1.weight": torch.zeros(1), "vfe.pfn_layers.0.linear.weight": torch.zeros(1)}
    with pytest.raises(FewerError, match="two priors for each class"):
        config_of_state({**state, "dense_head.rpn_heads.0.conv_cls.weight": torch.zeros(1)})
    with pytest.raises(FewerError, match="knows 4 classes, and it does not say their names"):
        config_of_state({**state, "dense_head.conv_box.weight": torch.zeros(56)})


def test_a_training_starts_from_published_weights(file, tmp_path):
    checkpoint = _saved(tmp_path / "centerpoint.pth", "centerpoint-pillar", NUSCENES)
    found = config_to_start_from(TrainSettings(init=str(checkpoint), size="published"))
    assert found is not None and found.classes == NUSCENES
    with_file = TrainSettings(init=str(checkpoint), init_config=str(file(CENTRES)))
    assert config_to_start_from(with_file) == found
    with pytest.raises(FewerError, match="holds centerpoint-pillar, not second"):
        config_to_start_from(TrainSettings(init=str(checkpoint), size="published", network="second"))
    with pytest.raises(FewerError, match="give both"):
        config_to_start_from(TrainSettings(init_config=str(file())))
    with pytest.raises(FewerError, match="leave --classes out"):
        config_to_start_from(TrainSettings(init=str(checkpoint), init_config=str(file()), classes=("Car",)))


def small(path: Path, network: str, drop: str = "", **more) -> Path:
    """A checkpoint in OpenPCDet's layout of our small network."""
    torch.manual_seed(0)
    state = published_state(build_network(short_config(network, ("Car",))))
    state.pop(drop, None)
    torch.save({"epoch": 80, "it": 9, "model_state": state, "optimizer_state": {"state": {}}, **more}, path)
    return path


def test_a_checkpoint_is_a_model_on_the_command_line(tmp_path, capsys):
    data = Streets(SENSORS["hdl-64"].ahead(30).thinned(6)).write(tmp_path / "kitti", 1, val=0.0)
    checkpoint = _saved(tmp_path / "pointpillar.pth", "pointpillars", ("Car", "Pedestrian", "Cyclist"))
    loaded = load_model(str(checkpoint))
    assert loaded.task == "detect3d" and loaded.meta["detect3d"]["view"] == "camera"
    assert main(["eval", str(checkpoint), str(data), "--task", "detect3d"]) == 0
    assert "Pedestrian" in capsys.readouterr().out
    assert main(["predict", str(checkpoint), str(data), "--out", str(tmp_path / "boxes")]) == 0
    assert len(list((tmp_path / "boxes").glob("*.txt"))) == 1


def test_a_file_that_says_what_a_checkpoint_does_not(tmp_path, file):
    checkpoint = tmp_path / "second.pth"
    torch.save({"model_state": published_state(build_network(config_of_file(file())))}, checkpoint)
    with pytest.raises(FewerError, match=r"second\.pth: the checkpoint knows 2 classes"):
        load_model(str(checkpoint))
    loaded = load_model(f"{checkpoint}?config={file()}")
    assert loaded.model.config.classes == ("Car", "Bus") and loaded.meta["detect3d"]["view"] == "full"
    with pytest.raises(FewerError, match="describes a checkpoint of OpenPCDet"):
        load_model(f"fewer/mobilenet-v2?config={file()}")


@pytest.mark.parametrize("network", ["pointpillars", "second", "centerpoint", "pv-rcnn"])
def test_weights_of_openpcdet_go_into_a_run(tmp_path, network):
    torch.manual_seed(1)
    net = build_network(short_config(network, ("Car",)))
    save_detector(tmp_path / "run", net, None)
    checkpoint = small(tmp_path / "theirs.pth", network)
    loaded = load_model(f"{tmp_path / 'run'}?checkpoint={checkpoint}")
    given = torch.load(checkpoint, weights_only=True)["model_state"]
    assert all(torch.equal(value, given[name]) for name, value in published_state(loaded.model).items())
    name = "backbone_2d.blocks.0.1.weight"
    with pytest.raises(FewerError, match=rf"short\.pth: the checkpoint lacks '{name}'"):
        load_model(f"{tmp_path / 'run'}?checkpoint={small(tmp_path / 'short.pth', network, drop=name)}")
    # the file of a run of ours is laid out as it is
    own = load_model(f"{tmp_path / 'run'}?checkpoint={tmp_path / 'run' / 'model.safetensors'}")
    assert all(
        torch.equal(a, b) for a, b in zip(own.model.state_dict().values(), net.state_dict().values(), strict=True)
    )


def test_weights_that_nobody_knows_are_told(tmp_path):
    torch.save({"model_state": {"layer.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    with pytest.raises(FewerError, match="only checkpoints of OpenPCDet and OpenGait are models by themselves"):
        load_model(str(tmp_path / "other.pth"))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(FewerError, match="holds more than weights, or is damaged"):
        fewer.evaluate(tmp_path / "cut.pth", tmp_path, task="detect3d")
