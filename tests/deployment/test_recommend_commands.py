"""`forge recommend`: options become the request; text, JSON, what-if, explanation; exit codes."""

import argparse
import json

import pytest

from flows.recommend_commands import add_arguments, recommend
from phases.errors import InputError

QUICK = ["--model", "Qwen/Qwen3-8B", "--gpu", "h100-sxm", "--use-case", "rag", "--rate", "1", "--ttft", "3000"]


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return recommend(parser.parse_args(options))


def test_text_says_what_how_much_and_why(capsys):
    assert run(*QUICK) == 0
    said = capsys.readouterr().out
    assert "Qwen/Qwen3-8B" in said and "h100-sxm" in said
    for part in (
        "1 request/s at the peak",
        "TTFT ≤ 3000 ms",
        "memory: weights ",
        "per million output tokens at the average load",
        "floor",
        "80 %",
        "Pareto front",
        "Rejected",
    ):
        assert part in said


def test_what_is_cut_says_of_how_many(capsys):
    assert run(*QUICK, "--gpu", "l4", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert run(*QUICK, "--gpu", "l4", "--top", "1") == 0
    said = capsys.readouterr().out
    assert f"cheapest first, 1 of {len(data['pareto'])}:" in said
    assert f"Best first by balance, 1 of {data['candidates_in_all']} (" in said
    assert run(*QUICK, "--gpu", "l4", "--top", "0") == 0
    said = capsys.readouterr().out
    assert not any(heading in said for heading in ("Pareto", "Best first", "TPOT p95"))


def test_many_users_and_replicas_in_plain_numbers(capsys):
    assert run("--users", "200000", "--model", "Qwen/Qwen3-0.6B", "--gpu", "h100-sxm") == 0
    said = capsys.readouterr().out
    assert "chat: 2,000 requests/s at the peak, 667 on average" in said and "USD/h each (" in said
    assert "e+0" not in said


def test_json_has_everything(capsys):
    assert run(*QUICK, "--json", "--prompt", "1000,2000", "--users", "7", "--licence", "apache-2.0") == 0
    data = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["request"]["prompt"] == {"mean": 1000, "p95": 2000}
    assert data["request"]["licences"] == ["apache-2.0"]
    assert data["workload"]["peak_rate"] == 1
    chosen = data["chosen"]
    assert chosen["estimate"]["tpot_ms"]["low"] <= chosen["estimate"]["tpot_ms"]["value"]
    assert chosen["estimate"]["tpot_ms"]["value"] >= chosen["estimate"]["floor_tpot_ms"]
    assert chosen["offer"]["source"] and chosen["offer"]["date"]
    assert data["candidates_in_all"] == len(data["candidates"]) > 0
    assert all({"candidate", "constraint", "value", "limit"} <= set(kind["nearest"][0]) for kind in data["rejected"])


def test_json_sums_up_what_was_rejected_unless_it_is_asked_for(capsys):
    several = (*QUICK, "--gpu", "l4", "--gpu", "t4")
    assert run(*several, "--json", "--top", "1") == 0
    short = json.loads(capsys.readouterr().out)
    assert run(*several, "--json", "--rejected") == 0
    whole = json.loads(capsys.readouterr().out)
    assert "rejections" not in short and len(short["candidates"]) == 1
    assert sum(kind["count"] for kind in short["rejected"]) == len(whole["rejections"]) > 0
    assert all(len(kind["nearest"]) <= 3 for kind in short["rejected"])
    assert {one["constraint"] for one in whole["rejections"]} == {kind["constraint"] for kind in short["rejected"]}


def test_what_if_is_side_by_side(capsys):
    assert run(*QUICK, "--what-if", "traffic.rate=50", "--what-if", "kv_bits=8 spot=true") == 0
    said = capsys.readouterr().out
    assert "as asked" in said and "traffic.rate=50" in said and "kv_bits=8 spot=true" in said


def test_nothing_fits_is_exit_code_1_with_the_nearest(capsys):
    assert run(*QUICK, "--budget", "1", "--rejected") == 1
    said = capsys.readouterr().out
    assert "Nothing fits" in said and "budget" in said and "USD a month" in said


def test_a_request_file_under_the_options(tmp_path, capsys):
    file = tmp_path / "team.yaml"
    file.write_text("use_case: chat\nrank: score\nweights: {task: 0, licence: 50}\nmodels: [Qwen/Qwen3-8B]\n")
    assert run("--request", str(file), *QUICK, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["request"]["use_case"] == "rag"
    assert data["request"]["weights"]["licence"] == 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--request", "nowhere.yaml"], "no such file"),
        (["--users", "-3"], "users"),
        (["--gpu", "h10"], "h100"),
        (["--report", "x", "--model", "y"], "do not go together"),
        (["--what-if", "nonsense"], "KEY=VALUE"),
        (["--tp", "0"], "tensor_parallel"),
        (["--prompt", "100,50"], r"^request: 'prompt': p95 = 50 is below mean = 100; give the 95th percentile$"),
        (["--request", "/"], "^/: not YAML"),
        (["--what-if", "budget_per_month=["], r"^what-if 'budget_per_month=\[': '\[' is no value; [^\n]*$"),
        (["--what-if", "models=a,["], "is no value"),
    ],
)
def test_what_a_user_can_mend_is_one_line(options, said):
    with pytest.raises(InputError, match=said):
        run(*options)


@pytest.mark.parametrize(
    ("option", "given", "example"),
    [
        ("--prompt", "abc", "e.g. 1200,3000"),
        ("--output", "1,2,3", "e.g. 1200,3000"),
        ("--max-parameters", "abc", "no number such as 40B"),
        ("--min-quality", "MMLU-Pro=abc", "e.g. MMLU-Pro=60"),
        ("--min-quality", "60", "e.g. MMLU-Pro=60"),
        ("--min-quality", "MMLU-Pro=nan", "e.g. MMLU-Pro=60"),
    ],
)
def test_an_option_that_is_none_is_told_how_it_looks(option, given, example, capsys):
    with pytest.raises(SystemExit):
        run(option, given)
    said = capsys.readouterr().err
    assert given in said and example in said and "invalid" not in said


def test_a_word_where_a_list_is_asked_for(tmp_path):
    file = tmp_path / "team.yaml"
    file.write_text("models: foo\ntraffic: 5\n")
    with pytest.raises(
        InputError, match=r"'traffic' = 5: give settings with .*'models' = 'foo': give a list, e\.g\. \[foo\]$"
    ):
        run("--request", str(file))


def test_a_request_that_is_no_mapping(tmp_path):
    file = tmp_path / "team.yaml"
    file.write_text("- chat\n")
    with pytest.raises(InputError, match="mapping"):
        run("--request", str(file))


def test_explain_shows_both_formulas(capsys):
    assert run("--explain", "--model", "Qwen/Qwen3-32B") == 0
    said = capsys.readouterr().out
    assert "tokens × layers × 2 × d_model / kv_groups" in said and "-37.5%" in said
    assert run("--explain", "--model", "Qwen/Qwen3-32B", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["first_error"] == pytest.approx(-0.375)


def test_use_cases_are_listed_with_their_reasons(capsys):
    assert run("--use-cases") == 0
    said = capsys.readouterr().out
    assert "chat: " in said and "p95 TTFT ≤ 300 ms" in said and "ttft: " in said


def test_max_parameters_in_words(capsys):
    assert run("--use-case", "chat", "--max-parameters", "0.7B", "--gpu", "l4", "--rate", "1", "--json") in (0, 1)
    assert json.loads(capsys.readouterr().out)["request"]["max_parameters"] == pytest.approx(7e8)
