"""Number formats: how weights and activations are rounded to fewer bits, and what that does to them."""
