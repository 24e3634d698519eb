"""What changes the fingerprint of a result's code, and what does not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.judges import JUDGES
from phases import fingerprint
from phases.fingerprint import read_code, source_fingerprint

RUN = '"""Doc."""\nfrom made_up.inner import part\n\ndef run():\n    """Doc."""\n    return part.VALUE  # why\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of ours: run → inner.part, which starts worker.py."""
    root = tmp_path / "made_up"
    (root / "inner").mkdir(parents=True)
    for path in (root, root / "inner"):
        (path / "__init__.py").write_text("")
    (root / "run.py").write_text(RUN)
    (root / "inner" / "part.py").write_text('VALUE = 1\nSCRIPT = "worker.py"\n')
    (root / "inner" / "worker.py").write_text("print(1)\n")
    (root / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fingerprint, "OURS", ("made_up",))
    yield root
    for name in [name for name in sys.modules if name.startswith("made_up")]:
        del sys.modules[name]


def now() -> str:
    fingerprint._read.cache_clear()
    source_fingerprint.cache_clear()
    return source_fingerprint("made_up.run")


def test_words_and_layout_do_not_count(package: Path) -> None:
    before = now()
    said = RUN.replace("Doc.", "Something else.").replace("  # why", "").replace("\n\ndef", "\n\n\n# a comment\ndef")
    (package / "run.py").write_text(said + '\n"""A text that stands alone."""\n')
    (package / "other.py").write_text("x = 2\n")
    assert now() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("run.py", "return part", "return 0 + part"),
        ("inner/part.py", "VALUE = 1", "VALUE = 2"),
        ("inner/worker.py", "print(1)", "print(2)"),
        ("inner/__init__.py", "", "y = 1"),
        ("inner/part.py", '"worker.py"', '"worker_2.py"'),
    ],
)
def test_code_counts_however_deep(package: Path, file: str, old: str, new: str) -> None:
    before = now()
    path = package / file
    path.write_text(path.read_text().replace(old, new, 1) if old else new)
    assert now() != before


def test_a_judge_is_known_by_what_it_imports() -> None:
    source_fingerprint.cache_clear()
    assert all(judge.__module__ == f"evaluation.judge_{name}" for name, judge in JUDGES.items())  # flows.gating
    baking, cognate = (source_fingerprint(f"evaluation.judge_{name}") for name in ("baking", "cognate"))
    assert baking != cognate and baking == source_fingerprint("evaluation.judge_baking")


def test_the_tools_and_what_they_start_are_covered() -> None:
    seen = set(read_code("phases.baking.run"))
    assert {"phases.agent.tools.python", "phases.agent.sandbox.runner", "phases.agent.own_tool_worker"} <= seen
    assert not any(name.startswith("evaluation") for name in seen)
    assert not any("baking" in name for name in read_code("evaluation.judge_bitnet"))
