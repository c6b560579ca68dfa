"""Repair after a cut: least-squares updates from calibration activations, bias correction, BatchNorm re-estimation."""
