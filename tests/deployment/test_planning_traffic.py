"""Use cases, traffic and the request: what ships is sensible, and nonsense is refused in words."""

import pytest

from deployment.planning.request import Request
from deployment.planning.traffic import Slo
from deployment.planning.use_cases import use_case, use_cases
from phases.errors import InputError


def asked(**settings: object) -> Request:
    return Request.parse(settings, "request")


def test_shipped_use_cases_are_valid_and_consistent():
    cases = use_cases()
    assert len(cases) >= 9
    assert {"chat", "code_completion", "code_agent", "rag", "translation", "extraction", "batch", "voice"} <= set(cases)
    for name, case in cases.items():
        assert case.prompt.p95 + case.output.p95 <= case.context, name
        assert case.benchmarks, name
        assert all(len(reason) > 3 for reason in case.reasons.model_dump().values()), name
        assert case.slo.model_dump(exclude_none=True), f"{name} promises nothing"


def test_objectives_of_chat_and_completion():
    assert use_case("chat").slo.ttft_p95_ms == 300
    assert use_case("code_completion").slo.ttft_p95_ms == 150


def test_means_of_the_code_agent_are_those_of_the_published_traces():
    """GitHub Copilot's coding-agent traces: 631.4 G prompt and 4.91 G completion tokens in 9.31 M calls."""
    case = use_case("code_agent")
    assert case.prompt.mean == pytest.approx(631.4e9 / 9_310_255, rel=0.01)
    assert case.output.mean == pytest.approx(4.91e9 / 9_310_255, rel=0.01)
    assert case.prefix_cached == pytest.approx(540.95 / 631.4, abs=0.01)


def test_unknown_use_case_names_the_nearest():
    with pytest.raises(InputError, match=r"did you mean chat"):
        asked(use_case="chatt").workload()


def test_peak_rate_from_users():
    workload = asked(traffic={"users": 600, "requests_per_user_hour": 6, "peak_factor": 2}).workload()
    assert workload.peak_rate == pytest.approx(2.0)  # 600 · 6 / 3600 s, twice
    assert workload.average_rate == pytest.approx(1.0)


def test_a_rate_is_the_peak_itself():
    workload = asked(traffic={"rate": 4, "peak_factor": 2}).workload()
    assert (workload.peak_rate, workload.average_rate) == (4, 2)


def test_own_objectives_replace_single_ones():
    workload = asked(use_case="chat", slo={"ttft_p95_ms": 200}).workload()
    assert workload.slo == Slo(ttft_p95_ms=200, tpot_p95_ms=50)
    assert asked(use_case="chat", slo={"ttft_p95_ms": None}).workload().slo.ttft_p95_ms is None


def test_context_grows_with_own_lengths_only():
    assert asked(use_case="chat").workload().context == 8192
    longer = asked(use_case="chat", prompt={"mean": 9000, "p95": 12000}).workload()
    assert longer.context == 12700


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"traffic": {"users": -5}}, "traffic.users"),
        ({"traffic": {"users": 10**12}}, "traffic.users"),
        ({"traffic": {"rate": 0}}, "traffic.rate"),
        ({"traffic": {"rate": 1e9}}, "traffic.rate"),
        ({"traffic": {"rate": float("nan")}}, "traffic.rate"),
        ({"traffic": {"peak_factor": 0.5}}, "traffic.peak_factor"),
        ({"prompt": {"mean": 0, "p95": 10}}, "prompt.mean"),
        ({"prompt": {"mean": 100, "p95": 10}}, "below mean"),
        ({"slo": {"ttft_p95_ms": -1}}, "slo.ttft_p95_ms"),
        ({"prefix_cached": 1.0}, "prefix_cached"),
        ({"budget_per_month": 0}, "budget_per_month"),
        ({"bugdet": 5}, "unknown key 'bugdet'"),
        ({"tensor_parallel": [0]}, "tensor_parallel"),
    ],
)
def test_nonsense_is_refused_by_name(settings, said):
    with pytest.raises(InputError, match=said):
        asked(**settings)


def test_a_context_that_holds_no_request_is_refused():
    with pytest.raises(InputError, match="at least 3700"):
        asked(use_case="chat", context=1000).workload()
