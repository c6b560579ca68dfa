"""Softmax, GELU, norms and what they are made of in integers: shifts, low-degree polynomials, tables. No training."""
