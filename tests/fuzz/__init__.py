"""Damaged and hostile files and flags: whatever they hold, the answer is one sentence."""
