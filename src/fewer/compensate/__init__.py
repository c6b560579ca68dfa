"""Repair after a cut: least-squares weight updates from calibration activations, bias correction, BatchNorm re-estimation."""
