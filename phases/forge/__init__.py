"""Phase 5: forge training in stages: a closed loop at the edge of chaos, dreams, self-modelling, gradient filters."""
