"""Segmentation in 2-D and 3-D: data, doctor, networks, training, prediction and metrics in millimetres."""
