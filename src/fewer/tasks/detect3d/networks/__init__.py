"""Detectors in plain torch, with the parameter names of OpenPCDet."""

from fewer.tasks.detect3d.networks.build import build_network, published_state
from fewer.tasks.detect3d.networks.config import NETWORKS, DetectorConfig, small_config
from fewer.tasks.detect3d.networks.detector import Detector

__all__ = ["NETWORKS", "Detector", "DetectorConfig", "build_network", "published_state", "small_config"]
