"""The outbox: order, what waits, what is left out, and how seldom a server that is away is tried."""

import pytest

from flows import outbox
from flows.outbox import Outbox
from phases.errors import InputError


class Server:
    """Takes letters; is away when told."""

    def __init__(self) -> None:
        self.there, self.got, self.asked, self.returns = True, "", 0, 0

    def ask(self) -> None:
        self.asked += 1
        if not self.there:
            raise ConnectionError("no\nserver")

    def returned(self) -> None:
        self.returns += 1

    def take(self, letter: str) -> str:
        if letter == "?":
            raise ValueError("no such letter")
        if letter == "!":
            raise ConnectionError("lost")
        self.got += letter
        return letter


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def box(server: Server) -> Outbox:
    return Outbox(server.ask, lambda error: isinstance(error, ValueError), server.returned)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "PAUSE_FACTOR", 0)


def put(box: Outbox, server: Server, letters: str) -> None:
    for letter in letters:
        box.put(lambda letter=letter: server.take(letter))


@pytest.mark.usefixtures("impatient")
def test_what_waits_is_sent_in_order_and_both_is_said_once(
    box: Outbox, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    put(box, server, "a")
    server.there = False
    put(box, server, "bc")
    assert box.away and server.got == "a" and server.returns == 0
    server.there = True
    put(box, server, "d")
    assert not box.away and server.got == "abcd" and server.returns == 1
    said = capsys.readouterr().err
    assert said == "tracking stopped, the run goes on without it: no server\ntracking resumed\n"


def test_it_is_left_alone_for_a_while(box: Outbox, server: Server) -> None:
    server.there = False
    put(box, server, "abcdef")
    assert server.asked == 1 and not box.send() and server.asked == 1
    assert not box.send(now=True) and server.asked == 2


def test_the_pause_grows_with_what_an_attempt_costs(
    box: Outbox, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 102.0])  # two seconds until it failed
    server.there = False
    with monkeypatch.context() as patch:
        patch.setattr(outbox.time, "monotonic", lambda: next(clock))
        put(box, server, "a")
    assert box._next_attempt == 102 + 40


def test_what_is_refused_is_left_out(box: Outbox, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    put(box, server, "a??b")
    assert server.got == "ab" and not box.away
    assert capsys.readouterr().err == "tracking: left out: no such letter\n"


def test_what_is_wanted_now_is_never_done_later(box: Outbox, server: Server) -> None:
    assert box.now(lambda: server.take("a")) == "a" and box.now(lambda: server.take("?")) is None
    assert box.now(lambda: server.take("!")) is None and box.away
    server.there = False
    assert box.now(lambda: server.take("b")) is None
    server.there = True
    assert box.send(now=True) and server.got == "a"


def test_the_forges_own_errors_pass(box: Outbox) -> None:
    def fail() -> None:
        raise InputError("which version?")

    with pytest.raises(InputError, match="which version"):
        box.now(fail)
    assert not box.away


@pytest.mark.usefixtures("impatient")
def test_ctrl_c_in_the_middle_loses_nothing(box: Outbox, server: Server) -> None:
    interrupts = [KeyboardInterrupt()]

    def interrupted() -> None:
        if interrupts:
            raise interrupts.pop()
        server.take("a")

    with pytest.raises(KeyboardInterrupt):
        box.put(interrupted)
    put(box, server, "b")
    assert server.got == "ab"
