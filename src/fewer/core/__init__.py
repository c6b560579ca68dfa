"""The idea itself: units, options, curves, budgets, allocation and plans. numpy only, no torch."""
