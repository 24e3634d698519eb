"""From sources to a sealed data set: read, split, check for leaks, tokenise, pack."""
