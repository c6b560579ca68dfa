"""How distortion is measured: the change of a model's output, by forward passes or by Taylor probes."""
