"""README's tables are what the kept report of the default run says."""

from tests.benchmarks.result_tables import README, TABLES, kept_report, with_error, written


def test_the_tables_come_from_the_report() -> None:
    text = README.read_text(encoding="utf-8")
    assert all(f"<!-- results: {name} -->" in text for name in TABLES)
    assert written(text, kept_report()) == text, "run python -m tests.benchmarks.result_tables"


def test_another_figure_is_seen() -> None:
    report = kept_report()
    phases = [
        phase.model_copy(update={"controls": ()}) if phase.phase == "evomerge" else phase for phase in report.phases
    ]
    text = README.read_text(encoding="utf-8")
    assert written(text, report.model_copy(update={"phases": tuple(phases)})) != text


def test_figures_as_they_are_shown() -> None:
    assert with_error(-0.5, 0.25, 2) == "−0.50 ± 0.25" and with_error(None, 0.1) == "not measured"
    assert with_error(-0.0001, None) == "0.000"
