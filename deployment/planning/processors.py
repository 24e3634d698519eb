"""A small agent on CPUs: as many processes as its measured time per token needs, one request at a time each.

There is no physics of CPUs here, only what was measured and the agent's report carries: the time of a generated token,
and that of a token of a prompt, which is read in one go. The queue in front of each process is that of
`deployment/physics/queueing.py`.
"""

from deployment.model import Model
from deployment.physics.keys_values import bytes_per_sequence
from deployment.physics.queue_simulation import Service
from deployment.physics.queueing import Latencies as Queue
from deployment.physics.queueing import open_loop
from deployment.planning.candidate import Rejection
from deployment.planning.capacity import least
from deployment.planning.fleet import ALONE, CPU, Fleet, Latencies, Subject
from deployment.planning.own_agent import Measured, OwnAgent
from deployment.planning.system import too_few
from deployment.planning.traffic import Workload
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Serving


def solve(agent: OwnAgent, workload: Workload, most: int) -> Fleet | Rejection:
    """The smallest number of processes that holds the objectives, or the constraint that they fail."""
    serving = Serving(engine="forge", max_context=workload.context)
    subject = Subject(agent.model.name, CPU, serving)
    measured = agent.measured
    if measured is None:
        words = "its report has no latency or no peak memory, and there is no physics of CPUs to fall back on"
        return subject.reject("physics", "not measured", "a time per token", words=words)
    token, prompt, output = measured.seconds_per_token, workload.prompt, workload.output
    read = measured.seconds_per_prompt_token
    writing = (output.p95 - 1) * token
    alone = subject.missed(Latencies(prompt.p95 * read, token, prompt.p95 * read + writing), workload, ALONE)
    if alone:
        return alone
    service = Service(prefill=prompt.mean * read, base=token)
    seen: dict[int, tuple[Queue, Latencies]] = {}

    def meets(replicas: int) -> bool:
        queue = open_loop(service, workload.peak_rate / replicas, output.mean)
        ttft = queue.ttft_percentiles[95] + (prompt.p95 - prompt.mean) * read
        seen[replicas] = queue, Latencies(ttft, token, ttft + writing)
        return subject.missed(seen[replicas][1], workload) is None

    replicas = least(meets, most, round(workload.peak_rate * (prompt.mean * read + output.mean * token)))
    if replicas is None:
        return too_few(subject, seen[most][1], workload, most)
    queue, latencies = seen[replicas]
    load = Load(prompt.mean, output.mean, rate=workload.peak_rate / replicas)
    answer = _estimate(agent.model, measured, queue, workload)
    return Fleet(agent.model, None, serving, load, replicas, answer, latencies, measured)


def _estimate(model: Model, measured: Measured, queue: Queue, workload: Workload) -> Estimate:
    """The measurement in the shape of an estimate; it has no interval, as nothing says how other CPUs differ."""
    sequence = bytes_per_sequence(model, workload.context)
    rest = max(0.0, measured.peak_bytes - measured.bytes_on_disk - sequence)
    token = measured.seconds_per_token
    return Estimate(
        memory=MemoryPlan(measured.peak_bytes, measured.bytes_on_disk, 0.0, rest, sequence, sequence),
        batch=queue.batch,
        ttft=_exactly(queue.ttft),
        tpot=_exactly(token),
        throughput=_exactly(queue.throughput),
        ttft_percentiles={p: _exactly(value) for p, value in queue.ttft_percentiles.items()},
        tpot_percentiles=dict.fromkeys(queue.ttft_percentiles, _exactly(token)),
        floor_tpot=0.0,
        parts={"measured": token},
        notes=(
            f"times per token and memory are measured on {measured.machine}; how much the rented CPU differs is not "
            "known, so there is no interval",
        ),
    )


def _exactly(value: float) -> Figure:
    return Figure(value, value, value, "measured")
