"""The one training loop: schedule, optimisers, moving average, constraints on weights, checkpoints and history."""
