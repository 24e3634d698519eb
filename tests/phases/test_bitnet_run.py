"""The bitnet phase end to end: what it writes, that it stays on the lattice, what it resumes, what it refuses."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from phases.bitnet.config import BitnetConfig
from phases.bitnet.lattice import ternary
from phases.bitnet.run import FULL_PRECISION, NO_TEACHER, PACKED, run
from phases.bitnet.storage import LATENT, SETTINGS, count_off_lattice, open_latent, read_lattices, read_settings
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.packed.model import packed_matrices
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, load_thinker, thinking_files
from phases.quiet_star.thinker import Thinker
from phases.training.batches import Mixture
from phases.training.config import TrainingConfig
from phases.training.loop import train
from phases.training.objective import LanguageModelling, Objective

TINY = BitnetConfig.parse(
    {
        "quantisation": {"group": 16},
        "training": TrainingConfig(steps=4, batch_rows=4, save_seconds=0.0).model_dump(),
    },
    "test",
)
SHAPE = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 48}


def saved(model: PreTrainedModel, data: Dataset, path: Path) -> Checkpoint:
    return save_checkpoint(path, model, data.tokenizer, Manifest("cognate"))


@pytest.fixture
def parent(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    return saved(tiny_model, tiny_data, tmp_path / "parent")


def test_what_is_written(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    curves: dict[str, float] = {}
    made = run([parent], TINY, tmp_path / "out", data=tiny_data, metrics=lambda step, values: curves.update(values))
    assert set(made.siblings) == {PACKED, NO_TEACHER, FULL_PRECISION} and made.manifest["parents"] == [parent.digest]
    assert {LATENT, SETTINGS, "model.safetensors"} <= set(made.manifest["files"])
    wanted = {
        "plain_nll",
        "kl_from_parent",
        "strength",
        "zeros",
        "codes_changed_since_start",
        "signs_flipped_since_start",
    }
    assert {f"ternary/{name}" for name in wanted} | {"no_teacher/zeros", "full_precision/loss"} <= set(curves)
    assert "no_teacher/kl_from_parent" not in curves
    assert curves["ternary/strength"] == 1.0 and 0.2 < curves["ternary/zeros"] < 0.5
    assert 0 <= curves["ternary/signs_flipped_since_start"] < curves["ternary/codes_changed_since_start"] < 1
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".work")]


def test_every_linear_weight_is_on_the_lattice_and_the_rest_is_not_touched_by_it(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    weights, settings = load_file(made.path / "model.safetensors"), read_settings(made.path)
    assert len(settings.ternary) == 21 and settings.embeddings == ("model.embed_tokens.weight",)
    for name in settings.ternary:
        for group in weights[name].view(-1, 16):
            values = set(group.abs().tolist()) - {0.0}
            assert len(values) <= 1 and torch.tensor(list(values)).half().float().tolist() == list(values)
    assert len(weights["model.embed_tokens.weight"][0, :16].unique()) > 8
    assert len(weights["model.norm.weight"].unique()) > 16
    assert count_off_lattice(made.path, settings.ternary) == 0 < count_off_lattice(made.path, settings.embeddings)
    assert count_off_lattice(made.siblings[NO_TEACHER].path, settings.ternary) == 0
    full = load_file(made.siblings[FULL_PRECISION].path / "model.safetensors")
    assert len(full[settings.ternary[0]].unique()) > 500


def test_plain_transformers_opens_it_without_our_code(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    program = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M; m = M.from_pretrained(sys.argv[1]);"
        "torch.save(m(torch.arange(9)[None]).logits, sys.argv[2]); assert not [n for n in sys.modules if 'phases' in n]"
    )
    command = [sys.executable, "-I", "-c", program, str(made.path), str(tmp_path / "logits")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    quantised = open_latent(made)  # rounds its latent weights to what the file holds, or raises
    quantised.fold()
    with torch.no_grad():
        ours = quantised.model(torch.arange(9)[None]).logits
    theirs = torch.load(tmp_path / "logits", weights_only=True)
    # Matrix products sum in an order that depends on where the weights lie.
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def test_packed_sibling_is_the_same_model(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    weights, packed = made.tensors(), packed_matrices(made.siblings[PACKED].model())
    assert len(packed) == 22
    assert all(torch.equal(matrix.weight, weights[f"{name}.weight"]) for name, matrix in packed.items())


def test_controls_had_the_same_steps(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    """Full precision is plain training of the parent on the same rows, to the bit."""
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    rows = Mixture(tiny_data, TINY.mix.model_dump(), TINY.seed, TINY.training.prompt_weight)
    model = parent.model()
    train(LanguageModelling(model), rows, TINY.training, tmp_path, name="plain", seed=TINY.seed)
    full = made.siblings[FULL_PRECISION]
    assert all(torch.equal(full.tensors()[name], p) for name, p in model.named_parameters())
    spent = [
        {k: c.manifest["metrics"][k] for k in ("steps", "tokens")} for c in (made, full, made.siblings[NO_TEACHER])
    ]
    assert spent[0] == spent[1] == spent[2] == {"steps": 4, "tokens": 4 * 4 * 32}
    assert not torch.equal(
        made.tensors()["model.norm.weight"], made.siblings[NO_TEACHER].tensors()["model.norm.weight"]
    )


def test_later_training_goes_on_from_the_latent_weights(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    before, quantised = made.tensors(), open_latent(made)
    name = "model.layers.0.mlp.up_proj.weight"
    latent = quantised.latent()[name]
    assert not torch.equal(latent, before[name]) and torch.equal(ternary(latent, 16).dequantise(), before[name])
    rows = Mixture(tiny_data, {"text": 1.0}, 0, 0.05)
    objective = LanguageModelling(quantised.model)  # knows nothing of lattices
    train(objective, rows, TINY.training, tmp_path, name="on", seed=0)
    after = quantised.lattices()[name]
    quantised.fold()
    weights = dict(quantised.model.named_parameters())
    assert torch.equal(after.dequantise(), weights[name]) and not torch.equal(weights[name], before[name])


def test_a_ternary_parent_trains_on_from_its_latent_weights(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    first = run([parent], TINY, tmp_path / "first", data=tiny_data)
    still = TINY.model_copy(
        update={"training": TINY.training.model_copy(update={"learning_rate": 1e-12, "matrix_learning_rate": 1e-12})}
    )
    second = run([first], still, tmp_path / "second", data=tiny_data)
    for name, lattice in read_lattices(second.path).items():
        torch.testing.assert_close(lattice.dequantise(), read_lattices(first.path)[name].dequantise(), msg=name)


def test_thoughts_ride_along(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> None:
    thinker = Thinker(tiny_model, MixingHead(32, 0.05), 5, 6)
    tokenizer = tiny_data.tokenizer
    tensors, texts = thinking_files(thinker, ThinkingFile(start=5, end=6, tokens=2))
    parent = save_checkpoint(tmp_path / "parent", tiny_model, tokenizer, Manifest("quiet_star"), tensors, texts)
    with pytest.raises(CheckpointError, match="other ids"):  # this tokenizer has no delimiters: it is looked at
        run([parent], TINY, tmp_path / "out", data=tiny_data)
    tokenizer = parent.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|startofthought|>", "<|endofthought|>"]})
    tiny_model.resize_token_embeddings(259)
    tensors, texts = thinking_files(thinker, ThinkingFile(start=257, end=258, tokens=2))
    parent = save_checkpoint(tmp_path / "thinks", tiny_model, tokenizer, Manifest("quiet_star"), tensors, texts)
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert load_thinker(made.path)[1].tokens == 2 and load_thinker(made.siblings[PACKED].path)[1].tokens == 2


def test_same_seed_same_digest_and_another_seed_another(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    first, again = (run([parent], TINY, tmp_path / name, data=tiny_data).family_digest for name in ("a", "b"))
    other = run([parent], TINY.model_copy(update={"seed": 1}), tmp_path / "c", data=tiny_data).family_digest
    assert first == again != other


@pytest.mark.parametrize("killed_at", [0, 3, 5, 10])
def test_killed_at_any_model_it_ends_in_the_same_bits(
    killed_at: int, parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run([parent], TINY, tmp_path / "whole", data=tiny_data).family_digest
    steps = iter(range(100))

    @contextlib.contextmanager
    def dying(self: object) -> Iterator[None]:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Objective, "stepping", dying)
        run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert (tmp_path / "out.work").is_dir()
    assert run([parent], TINY, tmp_path / "out", data=tiny_data).family_digest == whole


@pytest.mark.parametrize("kind", ["qwen", "mistral", "neox"])
@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_other_models_can_be_the_parent(kind: str, hidden: float, tiny_data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = {
        "qwen": lambda: Qwen3ForCausalLM(
            Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
        ),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=12)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    }[kind]()
    quantisation = {"group": None, "embedding_bits": 4, "activations": False}
    changes = {"quantisation": quantisation, "distillation": {"hidden": hidden}, "layout": "2bit"}
    config = BitnetConfig.parse({**TINY.model_dump(), **changes}, "test")
    seen: dict[str, float] = {}
    parent = saved(made, tiny_data, tmp_path / "parent")
    out = run([parent], config, tmp_path / "out", data=tiny_data, metrics=lambda step, values: seen.update(values))
    assert ("ternary/hidden_distance" in seen) == bool(hidden)
    assert {len(lattice.scale_OG) for lattice in read_lattices(out.path).values()} == {1}
    assert open_checkpoint(out.path).model().config.model_type == made.config.model_type


def test_wrong_parents_are_refused(tiny_data: Dataset, parent: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 inputs given"):
        run([parent, parent], TINY, tmp_path / "out", data=tiny_data)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(CheckpointError, match="matrices are not linear layers"):
        run([saved(gpt, tiny_data, tmp_path / "gpt")], TINY, tmp_path / "out", data=tiny_data)
    capped = Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8))
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(CheckpointError, match="more than its head's"):
        run([saved(capped, tiny_data, tmp_path / "capped")], TINY, tmp_path / "out", data=tiny_data)


@pytest.mark.parametrize("phase", ["quiet_star", "evomerge"])
def test_phases_that_would_leave_the_lattice_refuse_it(
    phase: str, parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    from phases.evomerge.run import EvomergeConfig
    from phases.evomerge.run import run as evomerge
    from phases.quiet_star.config import QuietStarConfig
    from phases.quiet_star.run import run as quiet_star

    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    with pytest.raises(CheckpointError, match=f"ternary, and {phase} does not train through the lattice"):
        if phase == "quiet_star":
            quiet_star([made], QuietStarConfig(), tmp_path / "thinks", data=tiny_data)
        else:
            evomerge([parent, made, made], EvomergeConfig(), tmp_path / "merged", data=tiny_data)
    with pytest.raises(CheckpointError, match="packed, which bitnet cannot train; give what it was packed from"):
        run([made.siblings[PACKED]], TINY, tmp_path / "again", data=tiny_data)


def test_damaged_files_are_named(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    copy = Checkpoint(shutil.copytree(made.path, tmp_path / "copy"), "", {})
    latent = load_file(copy.path / LATENT)
    name = "model.layers.1.mlp.down_proj.weight"
    save_file({**latent, name: -latent[name]}, copy.path / LATENT)
    with pytest.raises(CheckpointError, match=f"{LATENT}: {name} does not round to the model's weights"):
        open_latent(copy)
    save_file({name: latent[name]}, copy.path / LATENT)
    with pytest.raises(CheckpointError, match=f"{LATENT}: holds other tensors than {SETTINGS} names"):
        open_latent(copy)
    weights = load_file(copy.path / "model.safetensors")
    save_file({**weights, name: weights[name] * 1.01}, copy.path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name}: .* are not on the ternary lattice"):
        read_lattices(copy.path)
    (copy.path / SETTINGS).write_text("{}")
    with pytest.raises(CheckpointError, match=f"{SETTINGS}: truncated or altered"):
        read_settings(copy.path)
    with pytest.raises(CheckpointError, match="not ternary"):
        read_settings(parent.path)
