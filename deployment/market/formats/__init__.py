"""Readers of the price lists that are published, one file a format; `deployment/market/importing.py` runs them."""
