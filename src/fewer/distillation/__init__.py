"""Knowledge distillation: a compressed model learns to answer as its dense twin does, on unlabelled images."""
