"""Whoever answers: local models and OpenAI-compatible endpoints, asked once for every question."""
