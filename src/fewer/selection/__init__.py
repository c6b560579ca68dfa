"""Cold-start selection: which images of an unlabelled pool should be annotated first, and why."""
