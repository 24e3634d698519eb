"""Measurement only: metrics with n and standard error, floors, gates, controls, significance."""
