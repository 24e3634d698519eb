"""Nightly distillation: a teacher's answers, a smaller student, a test of what it keeps, and what it saves.

`flows.distill_flow` runs it every night; every part is usable alone. Nothing here knows of Prefect or MLflow.
"""
