"""Tasks with verifiable answers: what an item is, and the generators that make items."""
