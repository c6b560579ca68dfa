"""Repair after a cut: least-squares weight updates, bias correction, BatchNorm re-estimation."""
