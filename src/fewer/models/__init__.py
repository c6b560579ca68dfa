"""Where models come from and go to: nets, weights, specs, matching of units, saving and loading."""
