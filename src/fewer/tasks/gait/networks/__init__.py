"""Networks from silhouettes to embeddings, with the parameter names of OpenGait."""

from fewer.tasks.gait.networks.build import NETWORKS, build_network
from fewer.tasks.gait.networks.config import NetworkConfig
from fewer.tasks.gait.networks.network import GaitNetwork

__all__ = ["NETWORKS", "GaitNetwork", "NetworkConfig", "build_network"]
