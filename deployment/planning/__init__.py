"""Capacity and recommendation: traffic in, the cheapest, fastest or best plan out, with what was rejected and why.

from deployment.planning.recommend import recommend
from deployment.planning.request import Request
plan = recommend(Request(use_case="chat", models=("Qwen/Qwen3-8B",), rank="cost"))
"""
