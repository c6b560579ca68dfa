"""The report of a compression run: its numbers, sentences, figures and page."""
