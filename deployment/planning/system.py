"""One system under the whole traffic: does it meet the objectives at all, and with how many replicas at least?

First what no number of replicas mends: the memory, and a single request with nobody else there. Then the smallest
number of replicas that holds every objective at the peak.

Percentiles of the physics are of queueing, at the mean length. What a prompt of the 95th percentile takes longer to
read than a mean one is added to TTFT, as if the long prompts came at the bad moments: a bound from above.
"""

import math

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.estimate import Prepared, prepare
from deployment.physics.memory import memory_plan
from deployment.planning.candidate import Rejection
from deployment.planning.capacity import least
from deployment.planning.fleet import ALONE, Fleet, Latencies, Subject
from deployment.planning.traffic import Workload
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Serving
from phases.errors import InputError

GIB = 2.0**30


class System:
    """A model on an accelerator, served in one way, under one workload."""

    def __init__(
        self, model: Model, accelerator: Accelerator, serving: Serving, workload: Workload, cautious: bool = False
    ) -> None:
        self.model, self.accelerator, self.serving = model, accelerator, serving
        self.workload, self.cautious = workload, cautious
        self.subject = Subject(model.name, accelerator.name, serving)
        self._ready: dict[int, Prepared] = {}

    def alone(self, most: int) -> Latencies | Rejection:
        """What a mean request sees with the `most` replicas: the best that there can be."""
        try:
            found = self._at(self.workload.prompt.mean, most)
        except InputError as error:
            return self._memory() or self.subject.reject("physics", "not computed", "", words=str(error))
        failed = self._memory(found.memory)
        if failed:
            return failed
        latencies = self._with(self._value(found.ttft), self._value(found.tpot))
        return self.subject.missed(latencies, self.workload, ALONE) or latencies

    def solve(self, alone: Latencies, most: int) -> Fleet | Rejection:
        """The smallest number of replicas, at most `most`, that holds everything at the peak."""
        long = self._value(self._at(self.workload.prompt.p95, most).ttft)
        failed = self.subject.missed(self._with(long, alone.tpot), self.workload, ALONE)
        if failed:
            return failed
        longer, prompt = max(0.0, long - alone.ttft), self.workload.prompt.mean
        seen: dict[int, tuple[Estimate, Latencies]] = {}

        def meets(replicas: int) -> bool:
            found = self._at(prompt, replicas)
            ttft, tpot = self._value(found.ttft_percentiles[95]), self._value(found.tpot_percentiles[95])
            seen[replicas] = found, self._with(ttft + longer, tpot)
            return self.subject.missed(seen[replicas][1], self.workload) is None

        replicas = least(meets, most, self._enough())
        if replicas is None:
            return too_few(self.subject, seen[most][1], self.workload, most)
        load = self._load(prompt, replicas)
        return Fleet(self.model, self.accelerator, self.serving, load, replicas, *seen[replicas])

    def _enough(self) -> int:
        """Replicas that get the work done, whatever the latency: a good start for the search."""
        prompt, output = self.workload.prompt.mean, self.workload.output.mean
        ready = self._prepared(prompt)
        throughput = ready.at(Load(prompt, output, concurrency=ready.case.slots)).throughput.value
        return math.ceil(self.workload.peak_rate * output / throughput)

    def _at(self, prompt_tokens: int, replicas: int) -> Estimate:
        """One of so many replicas at the peak."""
        return self._prepared(prompt_tokens).at(self._load(prompt_tokens, replicas))

    def _prepared(self, prompt_tokens: int) -> Prepared:
        """What does not depend on the load, computed once."""
        if prompt_tokens not in self._ready:
            parts = self.model, self.accelerator, self.serving
            self._ready[prompt_tokens] = prepare(*parts, prompt_tokens, self.workload.output.mean)
        return self._ready[prompt_tokens]

    def _memory(self, known: MemoryPlan | None = None) -> Rejection | None:
        """Whether the weights and one sequence of full length have room."""
        plan = known or memory_plan(self.model, self.accelerator, self.serving)
        if plan.fits:
            return None
        need = (plan.usable - plan.kv_pool + plan.kv_per_sequence) / GIB
        words = f"weights {plan.weights / GIB:.1f}, a sequence of {self.workload.context} tokens "
        words += f"{plan.kv_per_sequence / GIB:.1f}, the engine {(plan.activation + plan.non_torch) / GIB:.1f}"
        return self.subject.reject("memory", need, plan.usable / GIB, f"GiB of each {self.accelerator.name}", words)

    def _load(self, prompt_tokens: int, replicas: int) -> Load:
        return Load(prompt_tokens, self.workload.output.mean, rate=self.workload.peak_rate / replicas)

    def _value(self, figure: Figure) -> float:
        return figure.high if self.cautious else figure.value

    def _with(self, ttft: float, tpot: float) -> Latencies:
        return Latencies(ttft, tpot, ttft + (self.workload.output.p95 - 1) * tpot)


def too_few(subject: Subject, at: Latencies, workload: Workload, most: int) -> Rejection:
    """The rejection of a system that not even the most replicas make fast enough."""
    failed = subject.missed(at, workload, f"with {most} replicas, the most allowed; --max-replicas allows more")
    assert failed is not None
    return failed
