"""One system under the whole traffic: does it meet the objectives at all, and with how many replicas at least?

First what no number of replicas mends: the memory, and a single request with nobody else there. Then what the most that
are allowed see at the peak, and the smallest number that holds every objective there.

Percentiles of the physics are of queueing, at the mean length. What a prompt of the 95th percentile takes longer to
read than a mean one, both alone, is added to TTFT, as if the long prompts came at the bad moments: a bound from above.
"""

import math

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.estimate import Prepared, prepare_lengths
from deployment.physics.memory import memory_plan
from deployment.physics.setup import Setup, setup
from deployment.physics.steady import Steady, closed_loop, open_loop
from deployment.planning.candidate import Rejection
from deployment.planning.capacity import least
from deployment.planning.digits import GIB, size
from deployment.planning.fleet import ALONE, Fleet, Latencies, Subject
from deployment.planning.traffic import Workload
from deployment.serving import Figure, Load, MemoryPlan, Serving
from phases.errors import InputError

IDLE = 1e-9
"""Requests a second at which a request meets no other."""


class System:
    """A model on an accelerator, served in one way, under one workload."""

    def __init__(
        self, model: Model, accelerator: Accelerator, serving: Serving, workload: Workload, cautious: bool = False
    ) -> None:
        self.model, self.accelerator, self.serving = model, accelerator, serving
        self.workload, self.cautious = workload, cautious
        self.subject = Subject(model.name, accelerator.name, serving)
        self._ready: dict[int, Prepared] = {}
        self._setup: Setup | None = None

    def alone(self, most: int) -> Latencies | Rejection:
        """What mean requests see at the peak with the `most` replicas: the best that there can be."""
        try:
            ready = self._prepared(self.workload.prompt.mean)
        except InputError as error:
            return self._memory() or self.subject.reject("physics", "not computed", "", words=str(error))
        failed = self._memory(ready.system.memory)
        if failed:
            return failed
        latencies = self._latencies(ready, self._state(ready, most))
        return self._beyond(latencies, most, ready) or latencies

    def stable(self) -> int:
        """Replicas with fewer than which a queue grows without end: no answer has fewer."""
        server, rate = self._prepared(self.workload.prompt.mean).replica, self.workload.peak_rate
        slots = math.ceil(rate * server.output * server.tpot(server.slots) / server.slots * (1 - 1e-9))
        return max(slots, math.floor(rate * server.busy) + 1)

    def solve(self, alone: Latencies, most: int) -> Fleet | Rejection:
        """The smallest number of replicas, at most `most`, that holds everything at the peak."""
        ready, long = self._prepared(self.workload.prompt.mean), self._prepared(self.workload.prompt.p95)
        first, longest = (self._latencies(one, open_loop(one.replica, IDLE)).ttft for one in (ready, long))
        longer = max(0.0, longest - first)
        failed = self._beyond(self._with(alone.ttft + longer, alone.tpot), most, ready, longer)
        if failed:
            return failed
        seen: dict[int, tuple[Steady, Latencies]] = {}

        def meets(replicas: int) -> bool:
            state = self._state(ready, replicas)
            seen[replicas] = state, self._latencies(ready, state, longer)
            return self.subject.missed(seen[replicas][1], self.workload) is None

        replicas = least(meets, most, self._enough(ready))
        assert replicas is not None, "the most hold everything"
        state, latencies = seen[replicas]
        load = Load(self.workload.prompt.mean, self.workload.output.mean, rate=state.rate)
        parts = self.model, self.accelerator, self.serving
        return Fleet(*parts, load, replicas, ready.figures(state), latencies)

    def _enough(self, ready: Prepared) -> int:
        """Replicas that get the work done, whatever the latency: a good start for the search."""
        full = closed_loop(ready.replica, ready.replica.slots)
        return math.ceil(self.workload.peak_rate * self.workload.output.mean / (full.batch / ready.tpot(full).value))

    def _state(self, ready: Prepared, replicas: int) -> Steady:
        """One of so many replicas at the peak."""
        return open_loop(ready.replica, self.workload.peak_rate / replicas)

    def _prepared(self, prompt_tokens: int) -> Prepared:
        """What does not depend on the load, computed once."""
        if self._setup is None:
            self._setup = setup(self.model, self.accelerator, self.serving)
        if prompt_tokens not in self._ready:
            self._ready[prompt_tokens] = prepare_lengths(self._setup, prompt_tokens, self.workload.output.mean)
        return self._ready[prompt_tokens]

    def _memory(self, known: MemoryPlan | None = None) -> Rejection | None:
        """Whether the weights and one sequence of full length have room."""
        plan = known or memory_plan(self.model, self.accelerator, self.serving)
        if plan.fits:
            return None
        need = (plan.usable - plan.kv_pool + plan.kv_per_sequence) / GIB
        words = f"weights {size(plan.weights)}, a sequence of {self.workload.context} tokens "
        words += f"{size(plan.kv_per_sequence)}, the engine {size(plan.activation + plan.non_torch)}"
        return self.subject.reject("memory", need, plan.usable / GIB, f"GiB of each {self.accelerator.name}", words)

    def _beyond(self, at_most: Latencies, most: int, ready: Prepared, longer: float = 0.0) -> Rejection | None:
        """The rejection of a system that misses an objective even with the `most` replicas; None if it holds all.

        Where a request that meets no other misses as well, more replicas would not help; elsewhere they would.
        """
        if self.subject.missed(at_most, self.workload) is None:
            return None
        idle = self._latencies(ready, open_loop(ready.replica, IDLE), longer)
        return self.subject.missed(idle, self.workload, ALONE) or too_few(self.subject, at_most, self.workload, most)

    def _latencies(self, ready: Prepared, state: Steady, longer: float = 0.0) -> Latencies:
        """95th percentiles; `longer`: what reading a long prompt adds."""
        return self._with(self._value(ready.ttft(state, 95)) + longer, self._value(ready.tpot(state, 95)))

    def _value(self, figure: Figure) -> float:
        return figure.high if self.cautious else figure.value

    def _with(self, ttft: float, tpot: float) -> Latencies:
        return Latencies(ttft, tpot, ttft + (self.workload.output.p95 - 1) * tpot)


def too_few(subject: Subject, at: Latencies, workload: Workload, most: int) -> Rejection:
    """The rejection of a system that not even the most replicas make fast enough."""
    number = "one replica" if most == 1 else f"{most} replicas"
    failed = subject.missed(at, workload, f"with {number}, the most allowed; --max-replicas allows more")
    assert failed is not None
    return failed
