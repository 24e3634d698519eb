"""What the market and the most replicas allow, and what an answer says of both."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from deployment.market.store import COLUMNS
from deployment.planning.recommend import recommend
from deployment.planning.request import Request
from deployment.planning.what_if import rows, what_if
from phases.errors import InputError


def asked(**settings: object) -> Request:
    easy = {"use_case": "rag", "traffic": {"rate": 3.0}, "slo": {"ttft_p95_ms": 3000, "tpot_p95_ms": 100}}
    return Request.parse({**easy, "models": ["Qwen/Qwen3-8B"], "accelerators": ["l4"], **settings}, "request")


def test_too_few_replicas_are_not_said_to_be_a_system_that_is_too_slow() -> None:
    one = {"models": ["Qwen/Qwen3-8B"], "accelerators": ["h100-sxm"], "precisions": ["stored"], "tensor_parallel": [1]}
    busy = {"use_case": "chat", "traffic": {"rate": 200.0}, **one}
    (few,) = recommend(Request.parse({**busy, "max_replicas": 1}, "request")).rejections
    assert few.constraint == "load" and "with one replica, the most allowed; --max-replicas" in few.explanation
    chosen = recommend(Request.parse(busy, "request")).chosen
    assert chosen is not None
    enough = recommend(Request.parse({**busy, "max_replicas": chosen.replicas}, "request")).chosen
    assert enough is not None and enough.replicas == chosen.replicas, "the limit does not change what is enough"
    (nearly,) = recommend(Request.parse({**busy, "max_replicas": chosen.replicas - 1}, "request")).rejections
    assert nearly.constraint == "ttft" and f"with {chosen.replicas - 1} replicas, the most" in nearly.explanation
    slow = {**busy, "slo": {"ttft_p95_ms": 40}, "max_replicas": 1}
    (alone,) = recommend(Request.parse(slow, "request")).rejections
    assert alone.constraint == "ttft" and alone.value > 0.04 and "no number of replicas" in alone.explanation


def test_more_than_a_marketplace_has_is_not_on_offer_there() -> None:
    """Eleven replicas on Vast's one card were priced eleven times."""
    one = {"models": ["Qwen/Qwen3-8B"], "accelerators": ["l40s"], "precisions": ["fp8"], "tensor_parallel": [1]}
    (refused,) = recommend(asked(**one, clouds=["vast"], traffic={"rate": 30.0})).rejections
    assert refused.constraint == "instance" and "let once" in refused.explanation
    chosen = recommend(asked(**one, traffic={"rate": 30.0})).chosen
    assert chosen is not None and chosen.instances > 1 and not chosen.offer.marketplace
    single = recommend(asked(**one, clouds=["vast"], traffic={"rate": 0.1})).chosen
    assert single is not None and any("let once" in note for note in single.notes)


@pytest.mark.parametrize(("age", "said"), [(179, False), (181, True)])
def test_an_old_price_is_said_to_be_old(age: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the day of the very offer that is chosen, however new others of its cloud are."""
    day = (date.today() - timedelta(days=age)).isoformat()
    old = f"aws,old,us-east-1,0,l4,1,0.1,USD,8,32,{day},test"
    new = f"aws,new,us-east-1,0,l4,1,9.9,USD,8,32,{date.today().isoformat()},test"
    (tmp_path / "mine.csv").write_text("\n".join([",".join(COLUMNS), old, new]))
    monkeypatch.setenv("FORGE_OFFERS", str(tmp_path / "mine.csv"))
    answer = recommend(asked(models=["Qwen/Qwen3-0.6B"], accelerators=["l4"], tensor_parallel=[1], rank="cost"))
    assert answer.chosen is not None and answer.chosen.offer.instance == "old"
    assert any(f"prices of aws are {age} days old" in note for note in answer.notes) == said


def test_a_what_if_says_where_an_instance_can_be_taken_away() -> None:
    alternatives = what_if(asked(rank="cost"), ["spot=true"])
    rented = dict(rows(alternatives))["rented"]
    assert [cell.endswith(" spot") for cell in rented] == [False, True]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vendors": ["nvida"]}, "vendor 'nvida': did you mean nvidia"),
        ({"licences": ["mit", "apachee-2.0"]}, "licence 'apachee-2.0': did you mean apache-2.0"),
        ({"quality": {"benchmark": "MMLUPro", "at_least": 60}}, "score 'MMLUPro': did you mean MMLU-Pro"),
        ({"quality": {"benchmark": "zzz", "at_least": 60}}, "known: GPQA Diamond"),
        ({"vendors": ["amd"]}, "nothing on offer for accelerator l4; vendor amd"),
        ({"vendors": ["amd"], "accelerators": [], "clouds": ["aws"]}, "nothing on offer for cloud aws; vendor amd"),
    ],
)
def test_a_slip_gets_the_nearest_and_no_empty_answer(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recommend(asked(**settings))


def test_words_are_known_in_any_case() -> None:
    settings = {"vendors": ["NVIDIA"], "licences": ["Permissive"], "quality": {"benchmark": "mmlu-pro", "at_least": 1}}
    recommend(asked(models=[], max_parameters=1e9, **settings))


def test_models_on_cpus_are_rejected_with_the_reason() -> None:
    answer = recommend(asked(accelerators=["cpu"]))
    assert answer.chosen is None
    assert [str(one) for one in answer.nearest] == [
        "Qwen/Qwen3-8B on cpu: engine cpu where a GPU is needed; only a forge's agent runs on CPUs (give its run as "
        "the report)"
    ]
