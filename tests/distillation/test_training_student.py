"""Students: the shape that is nearest a ratio, what is cut away, and what comes along."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from distillation.training.importance import channel_scores, choose_layers, mean_loss
from distillation.training.learner import Learner, open_learner, save_learner, ship_learner
from distillation.training.pruning import Cut, Shape, Sizes, choose_shape, cut_config, cut_tensors, sizes_of, strongest
from distillation.training.student import Fresh, Own, Pruned, make_student
from phases.agent.settings import AgentSettings
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import is_ternary, read_lattices
from phases.checkpoint import Checkpoint, Manifest, load_model, save_checkpoint
from phases.cognate.shape import Shape as LlamaShape
from phases.data.tokenizer import train_tokenizer
from phases.errors import CheckpointError, DataError, InputError
from phases.training.batches import Rows

FAMILIES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def make_model(family: str, hidden: int = 36, layers: int = 3, inner: int = 67, **options: Any) -> Any:
    """A random model of a family, whose biases and norms are random too."""
    torch.manual_seed(3)
    sizes = {"vocab_size": 260, "hidden_size": hidden, "intermediate_size": inner, "head_dim": hidden // 2}
    heads = {"num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 128, "tie_word_embeddings": True}
    model = AutoModelForCausalLM.from_config(FAMILIES[family](**sizes, **heads, **ends, **options))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            parameter.data.normal_(1, 0.3)
    return model.eval()


@pytest.fixture
def rows() -> Rows:
    torch.manual_seed(5)
    weight = torch.zeros(6, 16)
    weight[:, 4:9] = 0.2
    return Rows(torch.randint(0, 260, (6, 17)), weight)


@pytest.fixture
def teacher(tmp_path: Path) -> Checkpoint:
    model, tokenizer = make_model("llama", 32, layers=4, inner=96), train_tokenizer(["a"], 260)
    return save_checkpoint(tmp_path / "teacher", model, tokenizer, Manifest("cognate"))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_sizes_count_every_parameter_of_every_shape(family: str) -> None:
    model = make_model(family, layers=3)
    sizes = sizes_of(model, "here")
    assert sizes.total(sizes.whole) == sum(p.numel() for p in model.parameters())
    cut = Cut((0, 2), ((1,), (0,)), (tuple(range(10)), tuple(range(5, 15))))
    small = AutoModelForCausalLM.from_config(cut_config(model.config, cut))
    assert sizes.total(Shape(2, 1, 10)) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_cut_model_computes_what_the_whole_one_does_without_the_rest(family: str) -> None:
    model = make_model(family, layers=3)
    cut = Cut((0, 2), ((1,), (0,)), (tuple(range(1, 67, 2)), tuple(range(33))))
    small = AutoModelForCausalLM.from_config(cut_config(model.config, cut)).eval()
    tensors = cut_tensors(dict(model.named_parameters()), cut, 2)
    assert not small.load_state_dict(tensors, strict=False).unexpected_keys
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        for place, layer in enumerate(cut.layers):
            whole = model.model.layers[layer]
            outside = [i for i in range(67) if i not in cut.neurons[place]]
            whole.mlp.down_proj.weight[:, outside] = 0
            gone = 1 - cut.groups[place][0]
            whole.self_attn.o_proj.weight[:, gone * 36 : gone * 36 + 36] = 0
        model.model.layers[1].mlp.down_proj.weight.zero_()
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        for part in ("mlp.down_proj", "self_attn.o_proj"):
            bias = getattr(model.model.layers[1].get_submodule(part), "bias", None)
            assert bias is None
        torch.testing.assert_close(small(tokens).logits, model(tokens).logits, rtol=1e-4, atol=1e-4)


SIZES = Sizes(Shape(4, 2, 352), outside=262_272, fixed=256, per_group=24_576, per_neuron=384)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 0.95), st.sampled_from(["depth", "width", "both"]))
def test_the_shape_is_the_nearest_of_all(ratio: float, axes: Any) -> None:
    shape, full = choose_shape(SIZES, ratio, axes), SIZES.total(SIZES.whole)
    depths = [4] if axes == "width" else range(1, 5)
    widths = [(2, 352)] if axes == "depth" else [(g, n) for g in (1, 2) for n in range(8, 353, 8)]
    totals = np.array([SIZES.total(Shape(d, *w)) for d in depths for w in widths])
    nearest = np.abs(totals[totals < full] - ratio * full).min() / full
    assert abs(SIZES.total(shape) / full - ratio) <= max(0.01, nearest + 1e-9)


def test_neurons_go_before_layers_and_heads() -> None:
    assert choose_shape(SIZES, 0.5, "both") == Shape(3, 2, 80)
    assert choose_shape(SIZES, 0.8, "both").groups == 2
    large = Sizes(Shape(28, 8, 3072), 155_000_000, 2048, 786_432, 3072)  # of the proportions of Qwen3-0.6B
    half = choose_shape(large, 0.5, "both")
    assert half.layers > 17 and half.groups > 4 and half.neurons < 1536


def test_depth_can_be_given_and_wrong_ones_are_refused() -> None:
    assert choose_shape(SIZES, 0.5, "both", layers=2).layers == 2
    with pytest.raises(InputError, match=r"layers=9.*1 to 4"):
        choose_shape(SIZES, 0.5, "both", layers=9)
    with pytest.raises(InputError, match="nothing of this teacher"):
        choose_shape(Sizes(Shape(1, 1, 8), 10, 1, 1, 1), 0.5, "depth")


def test_the_strongest_keep_their_order() -> None:
    assert strongest([1.0, 3.0, 3.0, 2.0], 2) == (1, 2)
    assert strongest([1.0, 1.0, 1.0], 2) == (0, 1)


def test_a_layer_that_does_nothing_goes_first(rows: Rows) -> None:
    model = make_model("llama", 32, layers=3, initializer_range=0.3)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        tokens = rows.tokens_BT[:, :1]
        for _ in range(16):  # what the model itself would write: it needs the other layers for it
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    depth = choose_layers(model, Rows(tokens, rows.weight_BT), 2)
    assert depth.kept == (0, 2)
    assert depth.removed[0].loss == pytest.approx(depth.whole_loss, abs=1e-6)


def test_greedy_removal_agrees_with_losses_of_cut_models(rows: Rows) -> None:
    model = make_model("qwen3", 32, layers=3, inner=96)
    whole = tuple(tuple(range(n)) for n in (2, 96))
    losses = {}
    for gone in range(3):
        kept = tuple(k for k in range(3) if k != gone)
        cut = Cut(kept, (whole[0],) * 2, (whole[1],) * 2)
        small = AutoModelForCausalLM.from_config(cut_config(model.config, cut)).eval()
        small.load_state_dict(cut_tensors(dict(model.named_parameters()), cut, 2), strict=False)
        losses[gone] = mean_loss(small, rows)
    removal = choose_layers(model, rows, 2).removed[0]
    assert removal.layer == min(losses, key=lambda gone: losses[gone])
    assert removal.loss == pytest.approx(losses[removal.layer], rel=1e-5)


def test_scores_are_the_squares_of_what_is_added(rows: Rows) -> None:
    model = make_model("llama", 32, layers=2, inner=96)
    groups, neurons = channel_scores(model, rows, 2)
    kept: dict[str, torch.Tensor] = {}
    layer = model.model.layers[1]
    hooks = [
        part.register_forward_pre_hook(lambda _, args, name=name: kept.update({name: args[0].detach()}))
        for name, part in (("o", layer.self_attn.o_proj), ("down", layer.mlp.down_proj))
    ]
    with torch.no_grad():
        model.model(rows.tokens_BT[:, :-1])
        real = slice(0, 9)  # the last weighted position is the ninth
        down, out = kept["down"][:, real].reshape(-1, 96), kept["o"][:, real].reshape(-1, 64)
        neuron = (down[:, 7, None] * layer.mlp.down_proj.weight[:, 7]).square().sum(1).mean()
        group = (out[:, 32:] @ layer.self_attn.o_proj.weight[:, 32:].T).square().sum(1).mean()
    for hook in hooks:
        hook.remove()
    assert neurons[1, 7] == pytest.approx(float(neuron), rel=1e-4)
    assert groups[1, 1] == pytest.approx(float(group), rel=1e-4)


def test_a_pruned_student_opens_anywhere_and_says_what_it_is(teacher: Checkpoint, rows: Rows, tmp_path: Path) -> None:
    student = make_student(teacher, Pruned(ratio=0.6), tmp_path / "student", calibration=rows)
    model = AutoModelForCausalLM.from_pretrained(student.path)
    report = json.loads((student.path / "student.json").read_text())
    assert sum(p.numel() for p in model.parameters()) == report["parameters"]
    assert report["ratio"] == pytest.approx(0.6, abs=0.02)
    assert student.manifest["parents"] == [teacher.digest]
    again = make_student(teacher, Pruned(ratio=0.6), tmp_path / "again", calibration=rows)
    assert again.digest == student.digest


def test_a_ternary_teacher_has_a_ternary_student(rows: Rows, tmp_path: Path) -> None:
    model = make_model("llama", 32, layers=3, inner=96)
    learner = Learner(model, train_tokenizer(["a"], 260), Quantised(model, Quantisation(group=32)))
    parent = save_learner(learner, tmp_path / "parent", Manifest("bitnet"))
    student = make_student(parent, Pruned(ratio=0.6), tmp_path / "student", calibration=rows)
    assert is_ternary(student.path) and read_lattices(student.path)
    shipped = ship_learner(open_learner(student), tmp_path / "shipped", Manifest("distillation"), parent)
    logits = [
        load_model(path)(torch.arange(5)[None]).logits for path in (shipped.path, shipped.path / "siblings/packed")
    ]
    torch.testing.assert_close(logits[0], logits[1], rtol=0.1, atol=0.1)


def test_what_makes_an_agent_rides_along(teacher: Checkpoint, rows: Rows, tmp_path: Path) -> None:
    settings = AgentSettings.model_validate({"context_tokens": 99, "design": {"mixture": {"weights": {"a": 1.0}}}})
    texts = {"agent.json": settings.model_dump_json()}
    agent = save_checkpoint(tmp_path / "agent", teacher.model(), teacher.tokenizer(), Manifest("adas"), texts=texts)
    student = make_student(agent, Pruned(), tmp_path / "student", calibration=rows)
    shipped = ship_learner(open_learner(student), tmp_path / "shipped", Manifest("distillation"), agent)
    kept = json.loads((shipped.path / "agent.json").read_text())
    assert kept["context_tokens"] == 99 and not kept["design"]["mixture"]["weights"]
    assert not list(tmp_path.glob(".*"))


def test_a_student_as_large_as_its_teacher_is_refused(teacher: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has to be smaller"):
        make_student(teacher, Own(path=str(teacher.path)), tmp_path / "student")
    with pytest.raises(InputError, match="has to be smaller"):
        make_student(teacher, Fresh(shape=LlamaShape(hidden=64)), tmp_path / "student")


def test_fresh_and_own_students(teacher: Checkpoint, tmp_path: Path) -> None:
    config = Fresh(shape=LlamaShape(hidden=16, layers=2, heads=2, kv_heads=1, intermediate=32))
    fresh = make_student(teacher, config, tmp_path / "fresh", seed=3)
    assert fresh.digest == make_student(teacher, config, tmp_path / "again", seed=3).digest
    own = make_student(teacher, Own(path=str(fresh.path)), tmp_path / "own")
    assert torch.equal(own.tensors()["model.norm.weight"], fresh.tensors()["model.norm.weight"])


def test_what_cannot_be_cut_is_named(teacher: Checkpoint, rows: Rows, tmp_path: Path) -> None:

    other = GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=257, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    )
    with pytest.raises(CheckpointError, match="not a Llama-, Qwen- or Mistral-style decoder"):
        sizes_of(other, "here")
    with pytest.raises(InputError, match="none were given"):
        make_student(teacher, Pruned(), tmp_path / "student")
    empty = Rows(rows.tokens_BT, torch.zeros_like(rows.weight_BT))
    with pytest.raises(DataError, match="no calibration rows"):
        make_student(teacher, Pruned(), tmp_path / "student", calibration=empty)
