"""Rounding on models: smoothing, rounding with feedback, integers for other runtimes, and training in few bits."""
