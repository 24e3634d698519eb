"""How a student is made from its teacher, and learns from it: rows, objectives, strategies, the control, searches."""
