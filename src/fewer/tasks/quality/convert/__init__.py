"""From pathways to instruction data: writers of questions, checks of every item, and the shapes that training reads."""
