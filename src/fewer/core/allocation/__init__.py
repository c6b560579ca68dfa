"""The solver: one option per unit under one or more budgets, exactly where that is possible."""
