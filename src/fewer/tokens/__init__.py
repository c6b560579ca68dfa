"""Fewer tokens: transformer blocks after which the most alike tokens go on as one, without any training."""
