"""Phase 2, evolutionary merging: one file a method, the genome, the search, the phase (`run`)."""
