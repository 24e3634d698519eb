"""Phase 1, cognate creation: one trunk, three specialised branches, one control."""
