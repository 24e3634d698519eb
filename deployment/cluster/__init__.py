"""Manifests brought to a Kubernetes cluster with the official client: checked, applied, watched, taken back.

from deployment.cluster.connection import connect
from deployment.cluster.rollout import roll_out
with connect() as cluster:
    roll_out(cluster, manifests)
"""
