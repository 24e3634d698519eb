"""Projects: what is distilled, how far it is, its nights, its students and their teachers, and what all of it saves."""
