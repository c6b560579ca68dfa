"""Seeing quality: feedback on how images look becomes instruction data, a tuned model, and scores (Q-Instruct)."""
