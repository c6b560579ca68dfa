"""The idea itself, without torch: units, options, curves, budgets, allocation, plans and run folders."""
