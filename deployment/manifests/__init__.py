"""A plan written down: commands, Kubernetes, KServe and Helm manifests, dashboards, and the recommendation in words.

    from deployment.manifests.bundle import write
    write(recommendation, Path("plan"))

Everything is made from one `Plan` (`plan.py`), so that what the engine is told, what the scheduler is asked for and
what the recommendation says cannot differ. Nothing runs a model's own code: `trust-remote-code` is never set.
"""
