"""Phase 6, baking: what a prompt asks for becomes what the model does."""
