"""What a changed setting, source or parent reaches is made again; everything else is taken from where it was made."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.report import read_report
from flows.chain import CHAIN
from flows.forge_flow import forge
from flows.parameters import ForgeConfig
from phases import phase

# Nine runs: half a minute of two cores each on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
SAID = {f"{name}: running": name for name in CHAIN}


@pytest.fixture
def made(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a config; the phases that were really run."""

    def run(config: ForgeConfig) -> list[str]:
        capsys.readouterr()
        forge(config)
        said = capsys.readouterr().err.splitlines()
        return [SAID[line] for line in said if line in SAID]

    return run


def changed(config: ForgeConfig, run: str = "u", **sections: dict[str, Any]) -> ForgeConfig:
    """The config under another name, with these settings of its sections changed."""
    updates = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update={"run": run, **updates})


def edit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if the source of a phase had been edited."""
    fingerprint = phase.source_fingerprint

    def edited(module: str) -> str:
        return fingerprint(module) + ("edited" if module == f"phases.{name}.run" else "")

    monkeypatch.setattr(phase, "source_fingerprint", edited)


def digests(config: ForgeConfig) -> list[str]:
    return [p.checkpoint.digest for p in read_report(config.folder).phases if p.checkpoint]


def test_nothing_changed_but_the_name(made: Any, copy: ForgeConfig) -> None:
    done = read_report(copy.folder)
    second = changed(copy)
    assert made(second) == []
    assert digests(second) == digests(copy)
    assert [p.seconds for p in read_report(second.folder).phases] == [p.seconds for p in done.phases]
    weights = [folder / "cognate" / "model.safetensors" for folder in (copy.folder, second.folder)]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino  # linked: no second copy on the disk


def test_changed_setting_of_the_last_phase(made: Any, copy: ForgeConfig) -> None:
    assert made(changed(copy, bitnet={"warmup": 0.3})) == ["bitnet"]


def test_changed_setting_of_the_first_phase_changes_the_parent_of_the_second(made: Any, copy: ForgeConfig) -> None:
    assert made(changed(copy, cognate={"seed": 1})) == list(copy.chain)


def test_changed_source_of_the_last_phase(made: Any, copy: ForgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "bitnet")
    assert made(copy) == ["bitnet"]


def test_changed_source_that_makes_the_same(made: Any, copy: ForgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "cognate")
    assert made(copy) == ["cognate"]  # its result is what it was, and so is what follows


def test_changed_data_reaches_everything(made: Any, copy: ForgeConfig) -> None:
    assert made(changed(copy, data={"passage_chars": 420})) == list(copy.chain)


def test_reuse_may_be_declined(made: Any, copy: ForgeConfig) -> None:
    second = changed(copy).model_copy(update={"reuse": False})
    assert made(second) == list(copy.chain)
    assert digests(second) == digests(copy)


def test_damaged_result_is_not_taken(made: Any, copy: ForgeConfig) -> None:
    weights: Path = copy.folder / "cognate" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    second = changed(copy)
    assert made(second) == ["cognate"]
    assert weights.stat().st_ino != (second.folder / "cognate" / "model.safetensors").stat().st_ino
