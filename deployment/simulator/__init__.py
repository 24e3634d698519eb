"""A stand-in for a planned deployment that needs no GPU: OpenAI's interface at the plan's predicted speed.

    forge simulate plan
    sh plan/load-test.sh        # measures it as it would measure the real thing

It answers nonsense, at the right time: requests wait, are prefilled and decode together as in an engine that batches
continuously, and each step takes as long as the physics says. What a load test then shows is what the plan promises,
seen through the client, the network and the queue.
"""
