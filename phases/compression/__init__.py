"""Phase 8: final compression."""
