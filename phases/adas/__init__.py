"""Phase 7: expert vectors, and a search for how the agent should work."""
