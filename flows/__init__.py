"""Orchestration only: Prefect flows, MLflow tracking, the command line."""
