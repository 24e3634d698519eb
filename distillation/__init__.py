"""Nightly distillation: a teacher's answers, a smaller student, a test that it keeps what the teacher can, and what it saves.

`flows.distill_flow` runs it every night; every part is usable alone. Nothing here knows of Prefect or MLflow.
"""
