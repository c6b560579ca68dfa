"""Fast products with pruned weights: the packed format, the native CPU library, the torch fallbacks and the modules."""
