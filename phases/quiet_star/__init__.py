"""Quiet-STaR: thoughts between the tokens of running text, learnt without labels."""
