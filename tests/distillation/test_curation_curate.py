"""The whole chain: same records and seed, same version, whatever the files; versions that tell what was altered."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from distillation.curation.config import CurationConfig
from distillation.curation.curate import Curated, curate
from distillation.curation.exact import drop_duplicates
from distillation.curation.versions import CARD, RECORDS, read_version, version, write_version
from distillation.record import Record, asked
from phases.errors import DataError

CONFIG = CurationConfig()
SEALED = [("Who wrote the play about the prince of Denmark, and in which year was it first printed?",)]
WORDS = [
    "ash",
    "birch",
    "cedar",
    "elm",
    "fir",
    "gum",
    "hazel",
    "ivy",
    "juniper",
    "larch",
    "maple",
    "oak",
    "pine",
    "yew",
]


def some(n: int = 40) -> list[Record]:
    rng = random.Random(1)
    records = [
        asked(" ".join(rng.sample(WORDS, 8)) + "?", completion="Yes.", group=rng.choice("ab"), source=f"f.csv:{i}")
        for i in range(n)
    ]
    near = asked(records[0].prompt.replace("?", " ?!"), completion="No.")
    mail = asked("Is jane@example.org a mail address?", completion="Yes.")
    refusal = asked("Say why, please", completion="I cannot help with that")
    return [*records, records[1], near, mail, refusal, asked(SEALED[0][0], completion="Shakespeare, 1603.")]


def curated(records: list[Record] | None = None, seed: int = 0) -> Curated:
    return curate(some() if records is None else records, SEALED, CONFIG, seed)


def test_every_step_says_what_it_did() -> None:
    result = curated()
    removed = {step.name: dict(step.removed) for step in result.steps}
    assert list(removed) == [
        "personal data",
        "exact duplicates",
        "quality",
        "near-duplicates",
        "decontamination",
        "balance",
    ]
    assert removed["exact duplicates"] == {"exact duplicate": 1}
    assert removed["quality"] == {"refusal (ask another teacher)": 1}
    assert removed["near-duplicates"] == {"near-duplicate (≥ 0.8)": 1}
    assert removed["decontamination"] == {"in the sealed evaluation": 1}
    assert result.steps[0].findings == {"email": 1}
    for before, after in zip(result.steps, result.steps[1:], strict=False):
        assert before.after == after.before == before.before - sum(before.removed.values())
    assert result.steps[-1].after == len(result.records)


@pytest.mark.parametrize("order", range(3))
def test_the_order_of_the_input_does_not_matter(order: int) -> None:
    records = some()
    random.Random(order).shuffle(records)
    assert curated(records).records == curated().records


def test_a_sealed_question_is_known_by_its_placeholders_too() -> None:
    sealed = "Who owns jane@example.org now?"
    kept = curate([asked(sealed), asked("Who owns the moon?")], [(sealed,)], CONFIG, 0).records
    assert [r.prompt for r in kept] == ["Who owns the moon?"]


def test_several_answers_of_a_question_stay_and_of_near_ones_the_first_good_one() -> None:
    question = " ".join(WORDS)
    good, refused = asked(question, completion="Trees."), asked(question + " !", completion="I cannot help with that")
    other = asked(question, completion="Woods.")
    assert {r.completion for r in curated([good, refused, other]).records} == {"Trees.", "Woods."}


@pytest.mark.parametrize("mark", ["!", "?!", ";", "..", "--", ":)"])
def test_a_question_counts_from_its_first_record_on(mark: str) -> None:
    """Answered ones come first, so the other one goes even where it stands before an unanswered record of the first."""
    question = " ".join(WORDS)
    records = [asked(question, completion="Trees."), asked(question), asked(question + mark)]
    assert {r.prompt for r in curated(records).records} == {question}


def test_conflicts_go_unless_they_are_to_stay() -> None:
    records = [
        asked("2 + 2?", reference="4"),
        asked("2 + 2?", reference="5"),
        asked("2 + 2?", reference="4 ", completion="4"),
    ]
    kept, step = drop_duplicates([*records, asked("why?", completion="a"), asked("why?", completion="b")])
    assert [r.prompt for r in kept] == ["why?", "why?"]
    assert step.removed == {"conflicting references": 3}
    assert step.findings == {"conflicting references": 1, "questions with several completions": 1}
    assert drop_duplicates(records, keep_conflicts=True)[0] == records
    assert drop_duplicates(records[::2])[0] == records[::2]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no records came in"),
        ([asked(SEALED[0][0])], r"none of 1 records is left \(in the sealed evaluation: 1\)"),
    ],
)
def test_nothing_left_is_an_error_with_its_reasons(records: list[Record], message: str) -> None:
    with pytest.raises(DataError, match=message):
        curated(records)


def test_a_version_is_its_keys_its_recipe_and_its_parent() -> None:
    records = curated().records
    own = version(records, CONFIG, "p")
    assert own == version(records[::-1], CONFIG.model_dump(mode="json"), "p")
    others = [version(records[1:], CONFIG, "p"), version(records, {"a": 1}, "p"), version(records, CONFIG, "q")]
    assert len({own, *others}) == 4


def test_a_version_is_written_whole_and_the_same_bytes_again(tmp_path: Path) -> None:
    result = curated()
    card = write_version(tmp_path / "a", result, CONFIG, parent="p", count_tokens=lambda text: len(text.split()))
    write_version(
        tmp_path / "b",
        Curated(result.records[::-1], result.steps),
        CONFIG,
        parent="p",
        count_tokens=lambda text: len(text.split()),
    )
    for name in (RECORDS, CARD):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    records, read = read_version(tmp_path / "a")
    assert (records, read) == (result.records, card)
    assert (read["version"], read["parent"], read["records"]) == (version(records, CONFIG, "p"), "p", len(records))
    assert read["tokens"]["completion"] == sum(len(r.completion.split()) for r in records)
    assert (read["licences"], read["teachers"]) == ({"own": len(records)}, {"none": len(records)})
    assert read["sources"]["f.csv"] > 1
    assert [step["name"] for step in read["steps"]] == [step.name for step in result.steps]


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (RECORDS, "ash", "ask", r"records.jsonl: line \d+: altered"),
        (RECORDS, "f.csv", "g.csv", "records.jsonl: altered .sources, weights"),
        (RECORDS, '"key"', '"kex"', "records.jsonl: line 1 is not a record"),
        (CARD, '"own"', '"MIT"', "version.json: altered since"),
        (CARD, "{", "[", "version.json: altered .not a card"),
    ],
)
def test_what_was_altered_is_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    write_version(tmp_path / "v", curated(), CONFIG)
    _edit(tmp_path / "v" / file, old, new)
    with pytest.raises(DataError, match=message):
        read_version(tmp_path / "v")


def test_lines_and_files_that_are_missing(tmp_path: Path) -> None:
    write_version(tmp_path / "v", curated(), CONFIG)
    lines = (tmp_path / "v" / RECORDS).read_text().splitlines(keepends=True)
    for changed, message in ((lines[1:], "its card says"), ([lines[1], *lines[1:]], "not those of version")):
        (tmp_path / "v" / RECORDS).write_text("".join(changed))
        with pytest.raises(DataError, match=message):
            read_version(tmp_path / "v")
    for name in (RECORDS, CARD):
        (tmp_path / "v" / name).unlink()
        with pytest.raises(DataError, match=f"{name}: missing"):
            read_version(tmp_path / "v")


def test_a_failed_write_leaves_the_old_version(tmp_path: Path) -> None:
    write_version(tmp_path / "v", curated(), CONFIG)

    def broken(text: str) -> Any:
        raise OSError("tokenizer is gone")

    with pytest.raises(OSError, match="gone"):
        write_version(tmp_path / "v", curated(seed=1), CONFIG, count_tokens=broken)
    assert read_version(tmp_path / "v")[0] == curated().records
    assert json.loads((tmp_path / "v" / CARD).read_text())["tokens"] is None
