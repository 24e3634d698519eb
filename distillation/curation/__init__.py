"""From records to a data set: pure steps that say what they took away and why; `curate.py` chains them."""
