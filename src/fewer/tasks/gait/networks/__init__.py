"""Networks from silhouettes to embeddings, with the parameter names of OpenGait."""

from fewer.tasks.gait.networks.build import NETWORKS, NetworkConfig, build_network
from fewer.tasks.gait.networks.network import GaitNetwork

__all__ = ["NETWORKS", "GaitNetwork", "NetworkConfig", "build_network"]
