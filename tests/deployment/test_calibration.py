"""Observed runs: both formats as the tools write them, the posterior by hand, and predictions that get better."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployment.atlas import catalogue
from deployment.market.accelerators import accelerator
from deployment.physics.calibration import calibrate, observe
from deployment.physics.calibration_formats import Run, read_runs
from deployment.physics.calibration_store import (
    BETWEEN,
    WITHIN,
    Correction,
    Observation,
    correction,
    keep,
    observations,
)
from deployment.physics.estimate import estimate, prepare
from deployment.serving import Load, Serving
from phases.errors import InputError

MODEL, GPU, SERVING = "meta-llama/Llama-3.1-8B-Instruct", "h100-sxm", Serving(precision="bf16")
VLLM = {
    "date": "20260401-120000",
    "backend": "vllm",
    "model_id": MODEL,
    "num_prompts": 100,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 8,
    "duration": 30.0,
    "completed": 100,
    "total_input_tokens": 102400,
    "total_output_tokens": 25600,
    "request_throughput": 3.3,
    "mean_ttft_ms": 90.0,
    "mean_tpot_ms": 9.0,
}


def guidellm(strategy: dict[str, Any], **means: float) -> dict[str, Any]:
    told = {
        "prompt_token_count": 1024.0,
        "output_token_count": 256.0,
        "request_concurrency": 7.9,
        "requests_per_second": 3.0,
        "time_to_first_token_ms": 95.0,
        "inter_token_latency_ms": 8.5,
    } | means
    metrics = {name: {"successful": {"mean": value}} for name, value in told.items()}
    return {"benchmarks": [{"config": {"strategy": strategy}, "metrics": metrics}], "args": {"model": MODEL}}


def saved(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_CALIBRATION", str(tmp_path / "kept" / "calibration.json"))


def test_vllm_closed_and_open_loop(tmp_path: Path) -> None:
    [closed] = read_runs(saved(tmp_path / "a.json", VLLM))
    assert closed == Run(Load(1024, 256, concurrency=8.0), 0.09, 0.009, MODEL)
    [opened] = read_runs(saved(tmp_path / "b.json", VLLM | {"request_rate": 4.0, "max_concurrency": None}))
    assert opened.load == Load(1024, 256, rate=3.3)


def test_guidellm_closed_and_open_loop(tmp_path: Path) -> None:
    [closed] = read_runs(saved(tmp_path / "a.json", guidellm({"type_": "concurrent", "streams": 8})))
    assert closed == Run(Load(1024, 256, concurrency=7.9), 0.095, 0.0085, MODEL)
    [opened] = read_runs(saved(tmp_path / "b.json", guidellm({"type_": "poisson", "rate": 3.0})))
    assert opened.load == Load(1024, 256, rate=3.0)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"mean": 3},
        {name: value for name, value in VLLM.items() if name != "completed"},
        VLLM | {"completed": 0},
        VLLM | {"mean_tpot_ms": 0.0},
        guidellm({"type_": "concurrent"}, inter_token_latency_ms=math.inf),
        {"benchmarks": [{"metrics": {}}]},
        {"benchmarks": []},
        {"benchmarks": [{"metrics": {"prompt_token_count": 3}}]},
        {"benchmarks": ["x"]},
        VLLM | {"request_rate": "fast"},
        VLLM | {"total_input_tokens": math.inf},
        VLLM | {"total_input_tokens": math.nan},
    ],
)
def test_results_that_say_nothing_are_refused(tmp_path: Path, content: Any) -> None:
    path = saved(tmp_path / "bad.json", content)
    with pytest.raises(InputError, match=r"bad\.json: "):
        read_runs(path)
    with pytest.raises(InputError):
        calibrate(path, catalogue.model(MODEL), accelerator(GPU), SERVING)
    assert observations() == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (VLLM | {"mean_ttft_ms": "fast"}, "whose mean_ttft_ms is 'fast', not a number"),
        (VLLM | {"total_input_tokens": "many"}, "whose total_input_tokens is 'many', not a number"),
        (VLLM | {"request_rate": "quick"}, "whose request_rate is 'quick', not a number"),
        (VLLM | {"completed": 0}, "whose completed is 0: no request was answered"),
        ({"mean_ttft_ms": 9.0}, "without completed"),
        ({"benchmarks": ["x"]}, "whose benchmark is 'x', not an object"),
        ({"benchmarks": "x"}, "whose benchmarks is no list"),
        ({"benchmarks": [{"metrics": {}}]}, "without metrics.prompt_token_count.successful.mean"),
        (
            {"benchmarks": [{"metrics": {"prompt_token_count": 3}}]},
            "whose metrics.prompt_token_count is 3, not an object",
        ),
        ({"benchmarks": [guidellm({})["benchmarks"][0] | {"config": 3}]}, "whose config is 3, not an object"),
    ],
)
def test_what_is_wrong_with_results_is_said_in_their_words(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError) as seen:
        read_runs(saved(tmp_path / "bad.json", content))
    assert str(seen.value) == f"{tmp_path / 'bad.json'}: a result {said}"


@pytest.mark.parametrize("content", [VLLM, guidellm({"type_": "concurrent"})])
def test_results_of_another_model_are_refused(tmp_path: Path, content: Any) -> None:
    path, gpu = saved(tmp_path / "a.json", content), accelerator(GPU)
    with pytest.raises(InputError, match=f"measured '{MODEL}', not Qwen/Qwen3-8B; .*--served-name {MODEL}"):
        calibrate(path, catalogue.model("Qwen/Qwen3-8B"), gpu, SERVING)
    assert observations() == ()
    calibrate(path, catalogue.model("Qwen/Qwen3-8B"), gpu, SERVING, served_name=MODEL)
    for name in (MODEL, MODEL.lower(), f"/models/{MODEL}/", "other/Llama-3.1-8B-Instruct"):
        assert read_runs(path, [name])


@pytest.mark.parametrize("split", [{"tp": 0}, {"tp": -2}, {"pp": 0}, {"dp": 0}])
def test_no_accelerators_are_no_split(tmp_path: Path, split: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        calibrate(saved(tmp_path / "a.json", VLLM), catalogue.model(MODEL), accelerator(GPU), Serving(**split))


def test_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="no JSON"):
        read_runs(tmp_path / "no.json")


def test_the_posterior_by_hand() -> None:
    known = tuple(Observation(MODEL, GPU, "vllm", ttft=0.5, tpot=0.3) for _ in range(4))
    found = correction(MODEL, GPU, "vllm", known)
    prior, noise = 1 / BETWEEN["tpot"] ** 2, 1 / WITHIN["tpot"] ** 2
    assert math.log(found.tpot.factor) == pytest.approx(4 * noise * 0.3 / (4 * noise + prior))
    assert found.tpot.points == 4
    assert 0 < found.tpot.left < 1


def test_neighbours_learn_less_and_strangers_nothing() -> None:
    known = tuple(Observation(MODEL, GPU, "vllm", ttft=0.5, tpot=0.3) for _ in range(4))
    own, near, engine, stranger = (
        correction(*system, known).tpot.factor
        for system in ((MODEL, GPU, "vllm"), (MODEL, "l4", "vllm"), ("a", "b", "vllm"), ("a", "b", "sglang"))
    )
    assert own > near > engine > stranger == 1.0


def test_nothing_observed_changes_nothing() -> None:
    assert correction(MODEL, GPU, "vllm") == Correction()


def test_a_calibrated_system_is_predicted_better_also_at_other_loads(tmp_path: Path) -> None:
    model, gpu = catalogue.model(MODEL), accelerator(GPU)
    true = {"ttft": 1.6, "tpot": 1.3}  # how much slower than the physics this system is

    def run(concurrency: float) -> tuple[float, float]:
        found = prepare(model, gpu, SERVING, 1024, 256, corrected=Correction()).at(Load(1024, 256, concurrency))
        return found.ttft.value * true["ttft"], found.tpot.value * true["tpot"]

    for index, concurrency in enumerate((1, 8, 32)):
        ttft, tpot = run(concurrency)
        told = {"max_concurrency": concurrency, "mean_ttft_ms": 1e3 * ttft, "mean_tpot_ms": 1e3 * tpot}
        calibrate(saved(tmp_path / f"{index}.json", VLLM | told), model, gpu, SERVING)
    before = prepare(model, gpu, SERVING, 1024, 256, corrected=Correction()).at(Load(1024, 256, 64))
    after = estimate(model, gpu, SERVING, Load(1024, 256, 64))
    ttft, tpot = run(64)
    assert abs(after.tpot.value / tpot - 1) < 0.1 < abs(before.tpot.value / tpot - 1)
    assert abs(after.ttft.value / ttft - 1) < 0.2 < abs(before.ttft.value / ttft - 1)
    assert after.tpot.provenance == "measured"
    assert after.tpot.high / after.tpot.low < before.tpot.high / before.tpot.low


def test_no_observation_breaks_the_floor(tmp_path: Path) -> None:
    model, gpu = catalogue.model(MODEL), accelerator(GPU)
    report = calibrate(saved(tmp_path / "fast.json", VLLM | {"mean_tpot_ms": 0.01}), model, gpu, SERVING)
    assert report["tpot"]["factor"] < 0.5
    found = estimate(model, gpu, SERVING, Load(1024, 256, concurrency=8))
    assert found.tpot.value == found.floor_tpot
    assert all(figure.low >= found.floor_tpot for figure in (found.tpot, *found.tpot_percentiles.values()))


def test_an_impossible_load_says_what_to_check(tmp_path: Path) -> None:
    impossible = VLLM | {"request_rate": 1e5, "request_throughput": 1e5}
    with pytest.raises(InputError, match="overload"):
        calibrate(saved(tmp_path / "a.json", impossible), catalogue.model(MODEL), accelerator(GPU), SERVING)
    assert observations() == ()


def test_observations_are_kept_and_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    keep([Observation("a", "b", "c", 0.1, 0.2)], path)
    keep([Observation("d", "e", "f", 0.3, 0.4)], path)
    assert [entry.model for entry in observations(path)] == ["a", "d"]
    for ratio in ('"x"', "NaN", "null"):
        entry = f'{{"model": "a", "accelerator": "b", "engine": "c", "ttft": {ratio}, "tpot": 0.1}}'
        for text in (f'{{"observations": [{entry}]}}', "{}", "{"):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(InputError, match=r"here\.json"):
                observations(path)


def test_a_file_counts_once_for_a_system(tmp_path: Path) -> None:
    path, model = saved(tmp_path / "a.json", VLLM), catalogue.model(MODEL)
    calibrate(path, model, accelerator(GPU), SERVING)
    kept = observations()
    with pytest.raises(InputError, match=f"holds these very results for {MODEL} on {GPU} .vllm. already"):
        calibrate(path, model, accelerator(GPU), SERVING)
    assert observations() == kept
    calibrate(path, model, accelerator("h200"), SERVING)
    calibrate(saved(tmp_path / "b.json", VLLM | {"mean_tpot_ms": 9.1}), model, accelerator(GPU), SERVING)
    assert len(observations()) == 3


def test_who_calibrates_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: keep([Observation(f"m{n}", "b", "c", 0.1, 0.2)], path), range(40)))
    assert sorted(entry.model for entry in observations(path)) == sorted(f"m{n}" for n in range(40))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="FORGE_CALIBRATION"):
        keep([Observation("a", "b", "c", 0.1, 0.2)], tmp_path / "file" / "here.json")


def test_held_out_loads_of_measured_systems_are_predicted_better(shared: Path) -> None:
    from deployment.physics.validation_rows import read_rows, usable

    cells: dict[tuple[str, str, str], list[Any]] = {}
    rows = [row for row in read_rows(shared / "serving" / "benchmarks.csv") if row["mode"] == "agg"][::6]
    for _, point in usable(rows):
        cells.setdefault((point.model.name, point.accelerator.name, point.engine), []).append(point)
    before, after = [], []
    for system, points in cells.items():
        seen, held = points[::2], points[1::2]
        known = tuple(_observed(point) for point in seen)
        factor = correction(*system, known).tpot.factor
        before += [abs(math.exp(-_observed(point).tpot) - 1) for point in held]
        after += [abs(factor * math.exp(-_observed(point).tpot) - 1) for point in held]
    assert sum(after) < sum(before)


def _observed(point: Any) -> Observation:
    from deployment.physics.coefficients import shipped
    from deployment.physics.latency import closed_loop

    known = shipped()
    times = closed_loop(known.terms, known.factors(point.case.features), point.case)
    ratios = math.log(point.ttft / times.ttft), math.log(point.tpot / times.tpot)
    return Observation(point.model.name, point.accelerator.name, point.engine, *ratios)


def test_observing_one_run_is_the_ratio() -> None:
    model, gpu = catalogue.model(MODEL), accelerator(GPU)
    predicted = prepare(model, gpu, SERVING, 1024, 256, corrected=Correction()).at(Load(1024, 256, 8))
    run = Run(Load(1024, 256, 8), predicted.ttft.value * 2, predicted.tpot.value * 3, MODEL)
    found = observe(run, model, gpu, SERVING)
    assert found.ttft == pytest.approx(math.log(2))
    assert found.tpot == pytest.approx(math.log(3))
