"""Gait recognition: who walks, from silhouettes; networks, Temporal Periodic Alignment, protocols, a simulator."""
