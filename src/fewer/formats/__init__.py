"""How values are rounded: number formats on tensors, without any knowledge of models."""
