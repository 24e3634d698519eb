"""Phase 4: ternary weights (BitNet b1.58)."""
