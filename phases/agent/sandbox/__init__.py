"""Running somebody else's Python where it can do no harm."""
