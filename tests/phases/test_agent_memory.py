"""Memory: what comes back and what goes, in one process; `test_agent_memory_file` has the disk and other processes."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from phases.agent import ranking, wording
from phases.agent.memory import Memory, MemoryConfig
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.errors import DataError

START = datetime(2026, 1, 5, 8, tzinfo=UTC)


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at

    def pass_days(self, days: float) -> None:
        self.at += timedelta(days=days)


def texts(memory: Memory, query: str, limit: int = 9) -> list[str]:
    return [one.text for one in memory.recall(query, limit)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Iterator[Memory]:
    with Memory(None, MemoryConfig(), clock) as opened:
        yield opened


def test_a_fact_comes_back_for_a_question_and_nothing_for_another(memory: Memory) -> None:
    memory.remember("my boat is called Zumi", "monday")
    memory.remember("my sister is called Ravo", "monday")
    assert texts(memory, "what is my boat called?") == ["my boat is called Zumi"]
    assert texts(memory, "what is my horse called?") == []


@pytest.mark.parametrize("query", ["boats", "BOAT", "bôat", "Where is my boat's harbour?", "my boats!"])
def test_words_are_folded(memory: Memory, query: str) -> None:
    memory.remember("my boat is called Zumi", "monday")
    assert texts(memory, query) == ["my boat is called Zumi"]


@pytest.mark.parametrize("word", ["Straße", "naïve", "cafe\u0301", "ĞÜL", "ﬁn", "東京"])
def test_a_word_of_any_script_finds_itself(memory: Memory, word: str) -> None:
    memory.remember(f"it says {word} there", "monday")
    assert len(texts(memory, word)) == 1


def test_stop_words_count_when_there_is_nothing_else(memory: Memory) -> None:
    memory.remember("who I am: Anna", "monday")
    memory.remember("rivers find the sea", "monday")
    assert texts(memory, "who am I?") == ["who I am: Anna"]


@pytest.mark.parametrize(
    "query",
    ["", " ", '"', "'", '""" OR 1', "a AND", "NEAR(", "boat*", "text:boat", "^", "-boat", "\x00boat\x00", "🙂",
     "\ud800", "(((((", "; DROP TABLE facts", "%_", "{a b}:c", "boat " * 200_000, "x" * 1_000_000,
     " ".join(map(str, range(5000)))],
    ids=lambda query: ascii(query)[:20],
)  # fmt: skip
def test_any_text_is_a_safe_query(memory: Memory, query: str) -> None:
    memory.remember("my boat is called Zumi", "monday")
    assert texts(memory, query) == (["my boat is called Zumi"] if "boat" in query else [])


@pytest.mark.parametrize(
    "text", ["quote \" and ' boat", "boat \x00 NUL", "boat \ud83d half", "boat 🙂", "boat\n\nlines"]
)
def test_any_text_can_be_kept(memory: Memory, text: str) -> None:
    assert memory.remember(text, "monday").text == wording.clean(text)
    memory.log("monday", "user", text)
    assert [one.text for one in memory.episodes()] == [wording.clean(text)]
    assert texts(memory, "boat") == [wording.clean(text)]


def test_an_empty_fact_is_refused(memory: Memory) -> None:
    with pytest.raises(DataError, match="say what to remember"):
        memory.remember(" . ", "monday")


def test_an_equal_fact_is_refreshed(memory: Memory, clock: Clock) -> None:
    first = memory.remember("My boat is called Zumi.", "monday")
    clock.pass_days(3)
    again = memory.remember("my boat  is called ZUMI", "thursday")
    assert (again.id, again.text, again.at, again.session) == (first.id, first.text, clock.at, "thursday")
    assert len(list(memory.facts())) == 1


def test_a_newer_value_replaces_the_older_and_may_be_taken_back(memory: Memory) -> None:
    rex, max_, other = (memory.remember(f"my dog is called {name}", "monday") for name in ("Rex", "Max", "Rex"))
    memory.remember("my dog is brown", "monday")
    assert texts(memory, "dog") == ["my dog is brown", "my dog is called Rex"]
    assert [one.superseded_by for one in memory.facts()] == [max_.id, other.id, None, None]
    assert rex.id != other.id


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ("my dog is called Rex", "my dog is called"),
        ("My  dog is brown", "my dog is"),
        ("My sister lives in Rome.", "my sister lives in"),
        ("I live in Rome", "i live in"),
        ("my brother is a doctor", "my brother is a"),
        ("I am called Ann", "i am called"),
        ("I am tired", ""),
        ("it is raining", ""),
        ("is it raining", ""),
        ("my dog is", ""),
        ("I like C++", ""),
    ],
)
def test_what_a_fact_gives_the_value_of(fact: str, said: str) -> None:
    assert wording.statement(fact) == said


def test_facts_that_differ_in_signs_are_two(memory: Memory) -> None:
    memory.remember("I like C++", "monday")
    memory.remember("I like C#", "monday")
    assert len(texts(memory, "like")) == 2


def test_the_score_is_relevance_times_recency(memory: Memory, clock: Clock) -> None:
    memory.log("monday", "user", "the boat sails far")
    clock.pass_days(15)
    memory.log("monday", "user", "the lake sails far")
    for index in range(9):
        memory.log("monday", "user", f"something else {index}")
    clock.pass_days(30)
    scores = {one.text: one.score for one in memory.recall("boat", 9) + memory.recall("lake plum", 9)}
    assert scores["the boat sails far"] == pytest.approx(0.5 ** (45 / 30))
    assert scores["the lake sails far"] == pytest.approx(0.5 * 0.5)  # a word is missing, a half-life has passed


def test_relevance_is_the_quotient_of_bm25(memory: Memory) -> None:
    for index in range(20):
        memory.log("monday", "user", f"nothing of it number{index} is said")
    memory.log("monday", "user", "a boat is a boat")
    memory.log("monday", "user", "a boat and also a house and also a garden and also a horse")
    k1, b, mean = 1.2, 0.75, (20 * 6 + 5 + 14) / 22

    def bm25(times: int, length: int) -> float:
        return times * (k1 + 1) / (times + k1 * (1 - b + b * length / mean))

    first, second = memory.recall("boat", 2)
    assert second.score / first.score == pytest.approx(bm25(1, 14) / bm25(2, 5))


def test_facts_fade_to_a_floor_only_and_lead_at_equal_scores(memory: Memory, clock: Clock) -> None:
    memory.log("monday", "user", "Zumi is the boat")
    memory.remember("the boat: Zumi", "monday")
    assert [one.kind for one in memory.recall("boat Zumi")] == ["fact", "episode"]
    clock.pass_days(3000)
    found = memory.recall("boat Zumi")
    assert [one.score for one in found] == pytest.approx([0.25, 0.0])


def test_a_clock_that_was_set_back_does_no_harm(memory: Memory, clock: Clock) -> None:
    memory.remember("my boat is called Zumi", "monday")
    clock.pass_days(-400)
    assert memory.recall("boat")[0].score == 1.0


def test_what_is_said_twice_comes_back_once_as_the_fact(memory: Memory) -> None:
    for text in ("my boat is called Zumi", "My boat is called Zumi.", "the boat sails"):
        memory.log("monday", "user", text)
    memory.remember("my boat is called Zumi", "monday")
    assert sorted(one.kind for one in memory.recall("boat", 9)) == ["episode", "fact"]


def test_limit_and_kinds(memory: Memory) -> None:
    for index in range(9):
        memory.remember(f"boat {index}", "monday")
        memory.log("monday", "user", f"said boat {index}")
    assert len(memory.recall("boat")) == MemoryConfig().recall_limit
    assert memory.recall("boat", 0) == memory.recall("boat", -1) == memory.recall("boat", 9, ()) == []
    assert {one.kind for one in memory.recall("boat", 20, ("episode",))} == {"episode"}


def test_a_rare_word_finds_its_old_text_among_thousands_of_the_common_one(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "SELECTED", 50)
    memory.log("monday", "user", "the boat and the quince")
    clock.pass_days(1)
    for index in range(200):
        memory.log("monday", "user", f"a boat again {index}")
    assert texts(memory, "boat quince", 1) == ["the boat and the quince"]
    assert texts(memory, "boat again", 1) == ["a boat again 199"]  # of equal ones the newest


def test_recalling_counts_the_use_of_facts(memory: Memory, clock: Clock) -> None:
    memory.remember("my boat is called Zumi", "monday")
    clock.pass_days(2)
    memory.recall("boat")
    memory.recall("boat")
    (fact,) = memory.facts()
    assert (fact.uses, fact.last_used) == (2, clock.at)


def test_a_fact_knows_the_episode_before_it(memory: Memory) -> None:
    memory.log("sunday", "user", "hello")
    told = memory.log("monday", "user", "my boat is called Zumi")
    memory.log("tuesday", "user", "hello")
    assert memory.remember("my boat is called Zumi", "monday").episode == told
    assert memory.remember("my cat is called Tibo", "friday").episode is None


def test_episodes_by_session_and_time(memory: Memory, clock: Clock) -> None:
    for index in range(1203):  # more than two pages
        memory.log("even" if index % 2 == 0 else "odd", "user", str(index))
        clock.pass_days(1)
    assert [one.text for one in memory.episodes()] == [str(index) for index in range(1203)]
    assert [one.text for one in memory.episodes("odd", START + timedelta(days=1199))] == ["1199", "1201"]


def test_writing_while_reading_on(memory: Memory) -> None:
    for index in range(3):
        memory.remember(f"boat {index}", "monday")
    for fact in memory.facts():
        memory.log("monday", "assistant", fact.text)
    assert len(list(memory.episodes())) == 3


def test_forgetting_a_fact_takes_what_it_replaced_and_where_it_was_said(memory: Memory) -> None:
    for name in ("Rex", "Max"):
        memory.log("monday", "user", f"Remember: my dog is called {name}!")
        fact = memory.remember(f"my dog is called {name}", "monday")
    memory.log("monday", "user", "my dog sleeps")
    memory.remember("my cat is called Tibo", "monday")
    assert memory.forget(ids=[fact.id, 999]) == 4
    assert [one.text for one in memory.facts()] == ["my cat is called Tibo"]
    assert [one.text for one in memory.episodes()] == ["my dog sleeps"]


def test_forgetting_by_words_and_time(memory: Memory, clock: Clock) -> None:
    memory.log("monday", "user", "the boat is old")
    memory.log("monday", "user", "the house is old")
    clock.pass_days(1)
    memory.log("tuesday", "user", "the boat is old news")
    assert memory.forget(query="my old boat", before=clock.at) == 1
    assert memory.forget(query="?!") == memory.forget(query="boat house") == memory.forget(ids=[]) == 0
    assert memory.forget(before=clock.at) == 1
    assert [one.text for one in memory.episodes()] == ["the boat is old news"]
    with pytest.raises(DataError, match="nothing said of what to forget"):
        memory.forget()


def test_the_number_of_something_forgotten_is_not_used_again(memory: Memory) -> None:
    gone = memory.remember("my boat is called Zumi", "monday").id
    memory.forget(ids=[gone])
    assert memory.remember("my cat is called Tibo", "monday").id > gone


def test_room_is_made_by_use_and_age(clock: Clock) -> None:
    memory = Memory(None, MemoryConfig(capacity_facts=3), clock)
    for text in ("plum one", "pear two", "fig three", "my dog is called Rex"):
        memory.remember(text, "monday")  # the fourth pushes out the first
        clock.pass_days(1)
    memory.recall("pear")
    memory.remember("my dog is called Max", "monday")  # the fig is older, but Rex no longer holds
    assert [one.text for one in memory.facts()] == ["pear two", "fig three", "my dog is called Max"]
    memory.remember("quince four", "monday")
    assert [one.text for one in memory.facts()] == ["pear two", "my dog is called Max", "quince four"]
    memory.close()


def test_three_uses_are_worth_as_much_as_two_half_lives(clock: Clock) -> None:
    config = MemoryConfig(capacity_facts=2, half_life_days=10)
    for days, stays in ((19.9, "plum"), (20.1, "pear")):
        with Memory(None, config, clock) as memory:
            memory.remember("plum", "monday")
            for _ in range(3):
                memory.recall("plum")
            clock.pass_days(days)
            memory.remember("pear", "monday")
            memory.remember("fig", "monday")
            assert [one.text for one in memory.facts()] == [stays, "fig"]


def test_pruning_drops_old_episodes(clock: Clock) -> None:
    with Memory(None, MemoryConfig(keep_days=7), clock) as memory:
        memory.log("monday", "user", "old boat")
        clock.pass_days(5)
        memory.log("monday", "user", "new boat")
        assert memory.prune() == 0
        clock.pass_days(3)
        assert memory.prune() == 1
        assert texts(memory, "boat") == ["new boat"]


def test_export_and_import_are_a_round_trip(memory: Memory, clock: Clock, tmp_path: Path) -> None:
    for name in ("Rex", 'Max "the" 犬\n'):
        memory.log("monday", "user", f"my dog is called {name}")
        memory.remember(f"my dog is called {name}", "monday")
        clock.pass_days(1)
    memory.recall("dog")
    assert memory.export(tmp_path / "first.jsonl") == 4
    with Memory(None, now=clock) as other:
        assert other.import_(tmp_path / "first.jsonl") == 4
        assert other.import_(tmp_path / "first.jsonl") == 0
        other.export(tmp_path / "second.jsonl")
        assert texts(other, "dog") == texts(memory, "dog")
        assert list(other.facts()) == list(memory.facts())
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    assert json.loads((tmp_path / "first.jsonl").read_text().split("\n")[0])["version"] == 1


def test_importing_into_another_memory_numbers_anew_and_the_newest_holds(
    memory: Memory, clock: Clock, tmp_path: Path
) -> None:
    memory.log("monday", "user", "my dog is called Rex")
    memory.remember("my dog is called Rex", "monday")
    memory.export(tmp_path / "old.jsonl")
    clock.pass_days(1)
    with Memory(None, now=clock) as other:
        other.log("tuesday", "user", "hello")
        newer = other.remember("my dog is called Max", "tuesday")
        other.import_(tmp_path / "old.jsonl")
        (_, old) = other.facts()
        assert (old.text, old.episode, old.superseded_by) == ("my dog is called Rex", 2, newer.id)


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", '{"kind": "dream"}', '{"kind": "fact", "id": 1}', '{"format": "agent-forge memory"}'],
)
def test_a_wrong_line_is_named_and_nothing_is_added(memory: Memory, tmp_path: Path, line: str) -> None:
    memory.log("monday", "user", "hello")
    path = tmp_path / "memory.jsonl"
    memory.export(path)
    path.write_text(path.read_text().replace("hello", "good day") + line + "\n")
    with pytest.raises(DataError, match="line 3 is not of a memory's export"):
        memory.import_(path)
    assert [one.text for one in memory.episodes()] == ["hello"]
    path.write_text(line)
    with pytest.raises(DataError, match="line 1 is not"):
        memory.import_(path)


def test_the_tools_keep_and_find(memory: Memory) -> None:
    context = ToolContext(memory=memory, session="monday")
    keep, find = built_in("remember").run, built_in("recall").run
    assert find({"query": "boat"}, context) == "nothing"
    assert keep({"fact": "my boat is called Zumi"}, context) == "kept"
    assert find({"query": "boat"}, context) == "my boat is called Zumi"
    assert next(memory.facts()).session == "monday"


def test_the_recall_tool_answers_with_no_question_and_nothing_of_this_session(memory: Memory) -> None:
    memory.log("sunday", "user", "where is the boat?")
    memory.log("sunday", "assistant", "The boat is in the harbour.")
    memory.log("monday", "user", "tell me of the boat")
    find = built_in("recall").run
    assert find({"query": "boat"}, ToolContext(memory=memory, session="monday")) == "The boat is in the harbour."
    assert find({"query": "boat"}, ToolContext(memory=memory, session="sunday")) == "tell me of the boat"


@pytest.mark.parametrize(("name", "argument"), [("remember", "fact"), ("recall", "query")])
def test_the_tools_say_that_there_is_no_memory(name: str, argument: str) -> None:
    with pytest.raises(ToolError, match="^no memory here$"):
        built_in(name).run({argument: "boat"}, ToolContext())


def test_the_remember_tool_hands_a_refusal_on(memory: Memory) -> None:
    with pytest.raises(ToolError, match="say what to remember"):
        built_in("remember").run({"fact": "."}, ToolContext(memory=memory))


def test_a_half_life_of_nearly_nothing_is_no_number_that_overflows(clock: Clock) -> None:
    with Memory(None, MemoryConfig(half_life_days=1e-9, recency_floor=0.0), clock) as memory:
        memory.remember("boat", "monday")
        clock.pass_days(40_000)
        assert math.isfinite(memory.recall("boat")[0].score)
