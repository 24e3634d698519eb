"""The physics of serving and training: bytes, seconds and their uncertainty, in plain Python."""
