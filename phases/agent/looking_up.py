"""Looking things up besides what the model asks for: what is asked, before it answers, and where nothing was found.

    query_of("what is a heap?", 'look up "heap"', "quoted")        # "heap"
    told("my boat is called Zumi. Nice, is it not?")               # ["my boat is called Zumi"]
    first_calls('find "heap"', design, ("retrieve",))              # [Call("retrieve", {"query": "heap"})]

What is looked up before the model writes is a call like any other, made in its place: it stands behind the question
with its result, it is shown, and it counts as a call. That is the form in which models have learnt to read results: put
before the question, or into a system message, the same passages helped less. It is read, and never itself the reply.
"""

import re
from collections.abc import Collection

from phases.agent.calls import Call
from phases.agent.design import Design, Form
from phases.agent.summary import split_sentences
from phases.agent.tool import ToolContext
from phases.agent.tools.retrieve import RESULT_CHARS, shortened
from phases.agent.wording import query_words

LOOK_UPS = ("retrieve", "search")
"""Tools that look things up; where one finds nothing, the other is asked."""
NOTHING = "nothing found"
"""What they say then."""
_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»')
_OWN = re.compile(r"\b(?:my|mine|our|ours|i)\b", re.IGNORECASE)
_ASKS = re.compile(
    r"\s*(?:who|whom|whose|what|which|when|where|why|how|do|does|did|is|are|was|were|can|tell me)\b", re.I
)
_TOLD = re.compile(r"\bmy\b.*?\b(?:is|are)\b\s*\S.*", re.IGNORECASE | re.DOTALL)


def quoted(text: str) -> str:
    """The first part in double quotes of any kind, without them; empty where there is none."""
    found = _QUOTED.search(text)
    return next((part for part in found.groups() if part), "").strip() if found else ""


def query_of(query: str, question: str, form: Form) -> str:
    """What is asked for in the place of `query`; `question` is what the user said."""
    if form == "keywords":
        return " ".join(query_words(query)) or query
    return (quoted(question) if form == "quoted" else "") or query


def asks_of_own(text: str) -> bool:
    """Whether it is a question about what is the user's own."""
    return (text.rstrip().endswith("?") or bool(_ASKS.match(text))) and bool(_OWN.search(text))


def told(text: str) -> list[str]:
    """What somebody says of theirs: of each sentence that asks nothing, `my … is …` and what follows."""
    said = [sentence for sentence in split_sentences(text) if not sentence.endswith("?") and not _ASKS.match(sentence)]
    return [found[0].rstrip(".! ") for sentence in said if (found := _TOLD.search(sentence))]


def first_calls(question: str, design: Design, tools: Collection[str], due: str = "") -> list[Call]:
    """What is looked up before the model writes: questions about one's own in the memory, quoted parts in documents.

    Of a quoted part itself, not of the question around it, whose words find other things. `due`: the tool that a
    classifier names; where it is another one, that is left to the model.
    """
    calls = []
    if design.remembering.recall_first and asks_of_own(question):
        calls.append(Call("recall", {"query": question}))
    if design.retrieving.first and (part := quoted(question)):
        calls.append(Call("retrieve", {"query": query_of(part, question, design.retrieving.query)}))
    return [call for call in calls if call.name in tools and due in ("", call.name)]


def other(tool: str, tools: Collection[str]) -> str | None:
    """The other tool that looks things up, if the agent has both."""
    left = [name for name in LOOK_UPS if name != tool]
    return left[0] if tool in LOOK_UPS and left[0] in tools else None


def first_found(call: Call, design: Design, context: ToolContext) -> str:
    """What such a call finds, as many texts as the design says; empty where there is nothing."""
    query = str(call.arguments["query"])
    if call.name == "recall":
        facts = context.memory.recall(query, design.remembering.recall_first, ("fact",)) if context.memory else []
        return " ".join(" ".join(fact.text.split()) for fact in facts)
    found = context.documents.search(query, design.retrieving.first) if context.documents else []
    return " ".join(shortened(one.text, RESULT_CHARS) for one in found)
