"""Pure PyTorch: a checkpoint in, a checkpoint out. Nothing here knows of Prefect or MLflow."""
