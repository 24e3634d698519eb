"""What is looked up besides the model's own calls: what is asked, before it answers, and where nothing was found."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from phases.agent.calls import Call, CallFormat, Message, Said
from phases.agent.conversation import CallRecord
from phases.agent.design import Design
from phases.agent.documents import Document, DocumentStore, build_store
from phases.agent.library import Example, Library
from phases.agent.looking_up import asks_of_own, first_calls, query_of, quoted, told
from phases.agent.memory import Memory
from phases.agent.tool import ToolContext, built_in

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
TOOLS = [built_in(name) for name in ("retrieve", "search", "remember", "recall")]
NAMES = [tool.name for tool in TOOLS]


def user(text: str) -> list[list[Message]]:
    return [[{"role": "user", "content": text}]]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('find "a b" or "c"', "a b"),
        ("find “a”", "a"),
        ("finde „a“", "a"),
        ("trouve « a »", "a"),
        ("it's 'a'", ""),
        ("", ""),
    ],
)
def test_what_is_quoted(text: str, part: str) -> None:
    assert quoted(text) == part


@pytest.mark.parametrize(
    ("form", "query"), [("as_said", "what of the heap"), ("keywords", "heap"), ("quoted", "heap queue")]
)
def test_a_query_has_three_forms(form: Any, query: str) -> None:
    assert query_of("what of the heap", 'look up "heap queue"', form) == query


def test_a_form_that_leaves_nothing_is_not_taken() -> None:
    assert query_of("what is it", "no quotes", "quoted") == query_of("what is it", "", "as_said") == "what is it"
    assert query_of("?", "", "keywords") == "?"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("what is my boat called?", True),
        ("who am I", True),
        ("tell me what our dog eats", True),
        ("my boat is called Zumi", False),
        ("what is a boat?", False),
        ("compute 3*4", False),
    ],
)
def test_questions_about_ones_own(text: str, own: bool) -> None:
    assert asks_of_own(text) == own


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("my boat is called Zumi", ["my boat is called Zumi"]),
        ("Hi. My name is Ann! What is my name?", ["My name is Ann"]),
        ("remember: my dogs are brown.", ["my dogs are brown"]),
        ("what is my boat called?", []),
        ("what my boat is called", []),
        ("do you like my boat", []),
        ("I like tea", []),
    ],
)
def test_what_somebody_says_of_theirs(text: str, facts: list[str]) -> None:
    assert told(text) == facts


def test_what_is_looked_up_first_depends_on_the_question() -> None:
    design = Design.model_validate({"remembering": {"recall_first": 1}, "retrieving": {"first": 2, "query": "quoted"}})
    assert first_calls("hello", design, NAMES) == [] == first_calls('find "a"', Design(), NAMES)
    for form, query in (("as_said", "of a heap"), ("keywords", "heap"), ("quoted", "of a heap")):
        asking = Design.model_validate({"retrieving": {"first": 2, "query": form}})
        assert first_calls('find "of a heap" now', asking, NAMES) == [Call("retrieve", {"query": query})]
    assert first_calls("what is my dog?", design, NAMES) == [Call("recall", {"query": "what is my dog?"})]
    assert first_calls("what is my dog?", design, ["retrieve"]) == []
    assert first_calls('find "a"', design, NAMES, due="search") == []


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentStore]:
    path = tmp_path_factory.mktemp("store") / "documents.sqlite"
    texts = ("Heap: a tree whose parent is least.", "Heap: sorting by a tree.", "Bee: an insect that makes honey.")
    build_store(path, [Document(str(number), text) for number, text in enumerate(texts)])
    with DocumentStore(path) as store:
        yield store


class Web:
    """A search engine that knows one thing."""

    name = "web"

    def search(self, query: str, limit: int) -> list[Any]:
        from phases.agent.search import Hit

        return [Hit(title="Zebra", text="a striped horse", url="")] if "zebra" in query else []


@pytest.fixture
def context(documents: DocumentStore) -> Iterator[ToolContext]:
    with Memory(None) as memory:
        memory.remember("my boat is called Zumi", "before")
        memory.remember("my dog is red", "before")
        yield ToolContext(documents=documents, memory=memory, search=(Web(),), session="now")


def repeats(prompt: str) -> Any:
    """Says what it has read last."""
    return (
        prompt.rsplit("<tool_response>", 1)[1].split("</tool_response>")[0]
        if "<tool_response>" in prompt
        else "No idea."
    )


FIRST: Mapping[str, Mapping[str, Any]] = {
    "what is my boat called?": {"remembering": {"recall_first": 1}},
    'what of "heap"?': {"retrieving": {"first": 1, "query": "quoted"}},
}


@pytest.mark.parametrize("question", list(FIRST))
def test_what_was_looked_up_first_is_read_and_shown(
    act: Callable[..., Any], context: ToolContext, question: str
) -> None:
    seen: list[CallRecord] = []
    plain = act(repeats, TOOLS).take_turns(user(question), context)[0]
    (turn,) = act(repeats, TOOLS, **FIRST[question]).take_turns(user(question), context, seen.append)
    assert plain.text == "No idea." and plain.calls == []
    assert turn.text == turn.calls[0].result and turn.text in (
        "my boat is called Zumi",
        "Heap: a tree whose parent is least.",
    )
    assert seen == turn.calls and [message["role"] for message in turn.messages] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(("part", "name", "question"), [
    ("remembering", "recall_first", "what of my boat and my dog?"), ("retrieving", "first", 'a "heap"')
])  # fmt: skip
def test_as_many_are_read_as_are_asked_for(
    act: Callable[..., Any], context: ToolContext, part: str, name: str, question: str
) -> None:
    (turn,) = act(repeats, TOOLS, **{part: {name: 2}}).take_turns(user(question), context)
    both = ("Zumi", "red") if name == "recall_first" else ("parent", "sorting")
    assert all(word in turn.text for word in both)


def test_where_nothing_comes_to_mind_nothing_is_read(act: Callable[..., Any], context: ToolContext) -> None:
    design = {"remembering": {"recall_first": 1}, "retrieving": {"first": 1}}
    for text in ("what is my xyz?", '"xyz"', "hello"):
        (turn,) = act(repeats, TOOLS, **design).take_turns(user(text), context)
        assert turn.calls == [] and turn.text == "No idea."


def test_a_question_for_another_tool_is_left_to_the_model(act: Callable[..., Any], context: ToolContext) -> None:
    def solved(text: str, tool: str) -> Example:
        messages = ({"role": "user", "content": text}, Said("", (Call(tool, {}),)).message())
        return Example(domain=tool, messages=messages)

    library = Library(examples=(solved('look up "a"', "retrieve"), solved('search the web for "b"', "search")))
    acting = act(repeats, TOOLS, library, retrieving={"first": 1, "query": "quoted"})
    turns = acting.take_turns([*user('look up "heap"'), *user('search the web for "heap"')], context)
    assert [len(turn.calls) for turn in turns] == [1, 0]


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_told_is_kept_without_a_call(act: Callable[..., Any], context: ToolContext, keep: bool) -> None:
    (turn,) = act(repeats, TOOLS, remembering={"keep": keep}).take_turns(user("My cat is called Bo."), context)
    assert context.memory is not None and turn.calls == []
    facts = list(context.memory.facts())
    assert ("My cat is called Bo" in [fact.text for fact in facts]) == keep and facts[0].session == "before"


def asks(tool: str, query: str = "x") -> Callable[[str], Any]:
    return lambda prompt: repeats(prompt) if "<tool_response>" in prompt else FORM.render(Call(tool, {"query": query}))


@pytest.mark.parametrize(
    ("tool", "query", "without", "result"),
    [
        ("retrieve", "zebra", "nothing found", "1. Zebra: a striped horse"),
        ("search", "honey", "nothing found", "Bee: an insect that makes honey."),
        ("retrieve", "xyz", "nothing found", "nothing found"),
        ("recall", "honey", "nothing", "nothing"),
    ],
)
def test_where_nothing_was_found_the_other_tool_is_asked(
    act: Callable[..., Any], context: ToolContext, tool: str, query: str, without: str, result: str
) -> None:
    """It stays one call, that of the model."""
    for fallback, expected in ((False, without), (True, result)):
        (turn,) = act(asks(tool, query), TOOLS, calling={"fallback": fallback}).take_turns(user("?"), context)
        assert turn.calls == [CallRecord("done", tool, {"query": query}, expected)] and turn.text == expected


@pytest.mark.parametrize(("form", "query"), [("as_said", "the heap"), ("keywords", "heap"), ("quoted", "honey")])
@pytest.mark.parametrize("tool", ["retrieve", "search"])
def test_look_ups_ask_in_the_form_of_the_design(
    act: Callable[..., Any], context: ToolContext, tool: str, form: str, query: str
) -> None:
    (turn,) = act(asks(tool, "the heap"), TOOLS, retrieving={"query": form}).take_turns(user('about "honey"'), context)
    assert turn.calls[0].arguments == {"query": query}
    assert turn.messages[0]["tool_calls"][0]["function"]["arguments"] == {"query": query}


def test_other_tools_are_asked_as_the_model_says(act: Callable[..., Any], context: ToolContext) -> None:
    (turn,) = act(asks("recall", "my boat"), TOOLS, retrieving={"query": "quoted"}).take_turns(user('a "b"'), context)
    assert turn.calls[0].arguments == {"query": "my boat"}
