"""Learning experts: for every domain a z-vector and a task vector, on the domain's training conversations alone.

    folder = learn_experts(parent, data, {"python": encoded, "memory": encoded}, ExpertsConfig(), work)

A z-vector trains one number a singular value (`singular`); a task vector is what the same steps make of all linear
weights (arXiv 2212.04089). Both act on latent weights, through the lattice of a ternary parent; embeddings and norms
stay. An expert may forget the other domains: how much of each is added is found afterwards (`composition`).

<work>/<kind>-<name>         a finished expert
<work>/<kind>-<name>.state   where the training of one stands
<work>/experts               all of them (`vectors`)
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from phases.adas.singular import Singular, decompose, latent_of, scaled
from phases.adas.vectors import (
    TYPES,
    ExpertIndex,
    Kind,
    cosines,
    load_tensors,
    weights_digest,
    write_index,
    write_vectors,
)
from phases.baking.rows import BakingRows, Encoded, pack_conversations
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.forge.body import Body
from phases.phase import MetricsCallback, ignore_metrics
from phases.storage import atomic_directory
from phases.strict import StrictModel
from phases.training.config import TrainingConfig
from phases.training.loop import train
from phases.training.loss import row_nll
from phases.training.objective import LanguageModelling

VECTOR = "vector.safetensors"
FOLDER = "experts"
_BATCH_TOKENS = 4096
"""Of conversations that are read at a time."""


class ExpertsConfig(StrictModel):
    """How experts are learnt."""

    kinds: tuple[Kind, ...] = Field(("singular", "task"), min_length=1)
    """Scales of singular values (arXiv 2501.06252), differences of all linear weights (arXiv 2212.04089), or both."""
    training: TrainingConfig = TrainingConfig(
        steps=24, batch_rows=2, optimizer="adamw", learning_rate=0.0001, weight_decay=0.0, warmup=0.1, decay=0.5
    )
    """Training of each expert of each kind; its learning rates are those of task vectors."""
    singular_learning_rate: float = Field(0.0003, gt=0)
    """Peak rate of the scales."""
    row_tokens: int | None = Field(None, ge=32)
    """Tokens of a row of conversations; empty: as the data's rows, or as many as half of a domain's need."""

    def course(self, kind: Kind) -> TrainingConfig:
        """The training of one kind."""
        if kind == "task":
            return self.training
        return self.training.model_copy(update={"optimizer": "adamw", "learning_rate": self.singular_learning_rate})


def learn_experts(
    parent: Checkpoint,
    data: Dataset,
    lessons: Mapping[str, Sequence[Encoded]],
    config: ExpertsConfig,
    work: Path,
    metrics: MetricsCallback = ignore_metrics,
    seed: int = 0,
) -> Path:
    """The folder with the expert files, one expert for each domain of `lessons`.

    What is finished in `work` is not learnt again, and a killed training goes on where it stood. Raises `ConfigError`
    for a domain none of whose conversations fits a row, `CheckpointError` for a parent that cannot be trained here.
    """
    if not lessons:
        raise ConfigError("adas.experts: no domain has training conversations; give more text, tools or kinds")
    out = work / FOLDER
    if out.is_dir():
        return out
    school = _School(parent, data, config, work, metrics, seed)
    vectors = {
        kind: {name: school.expert(kind, name, encoded) for name, encoded in lessons.items()} for kind in config.kinds
    }
    index = ExpertIndex(
        names=tuple(lessons),
        kinds=config.kinds,
        base=weights_digest(school.base),
        cosine={kind: cosines(kind, found) for kind, found in vectors.items()},
    )
    with atomic_directory(out) as folder:
        for kind, found in vectors.items():
            write_vectors(folder, kind, found)
        write_index(folder, index)
    return out


class _School:
    """One parent, which every expert starts from anew."""

    def __init__(
        self,
        parent: Checkpoint,
        data: Dataset,
        config: ExpertsConfig,
        work: Path,
        metrics: MetricsCallback,
        seed: int,
    ) -> None:
        self.data, self.config, self.work, self.metrics, self.seed = data, config, work, metrics, seed
        self.body = Body(parent, data)
        self.model: Any = self.body.model.requires_grad_(False)
        quantised = self.body.quantised
        names = ternary_names(self.model) if quantised is None else quantised.ternary
        self.modules: dict[str, nn.Module] = {n: self.model.get_submodule(n.removesuffix(".weight")) for n in names}
        self.base = {name: latent_of(module).detach().clone() for name, module in self.modules.items()}
        self._singular: dict[str, Singular] = {}

    def expert(self, kind: Kind, name: str, encoded: Sequence[Encoded]) -> Mapping[str, torch.Tensor]:
        """The vectors of one expert by matrix, as they are stored."""
        out = self.work / f"{kind}-{name}"
        if not out.is_dir():
            half = sorted(len(one.tokens) for one in encoded)[len(encoded) // 2] if encoded else 0
            length = self.config.row_tokens or max(self.data.block_tokens, half)
            pad = int(self.body.tokenizer.eos_token_id)
            packed = pack_conversations(encoded, length, pad, f"adas.experts: {name}")
            rows = BakingRows(packed, None, 0.0, self.seed, pad)
            made = self._scales(name, rows) if kind == "singular" else self._difference(name, rows)
            with atomic_directory(out) as folder:
                save_file({matrix: v.to(TYPES[kind]).contiguous() for matrix, v in made.items()}, folder / VECTOR)
        return load_tensors(out / VECTOR)

    def _scales(self, name: str, rows: BakingRows) -> dict[str, torch.Tensor]:
        """z by matrix."""
        if not self._singular:
            self._singular = {matrix: decompose(weight_OI) for matrix, weight_OI in self.base.items()}
        with scaled(self.modules, self._singular) as scalings:
            self._train("singular", name, rows)
            return {matrix: scaling.z_R.detach().clone() for matrix, scaling in scalings.items()}

    def _difference(self, name: str, rows: BakingRows) -> dict[str, torch.Tensor]:
        """τ by matrix; the model is the parent again."""
        latent = {matrix: latent_of(module).requires_grad_(True) for matrix, module in self.modules.items()}
        self._train("task", name, rows)
        found = {matrix: weight_OI.detach() - self.base[matrix] for matrix, weight_OI in latent.items()}
        for matrix, weight_OI in latent.items():
            weight_OI.requires_grad_(False).copy_(self.base[matrix])
        return found

    def _train(self, kind: Kind, name: str, rows: BakingRows) -> None:
        """Train what wants gradients."""
        state = self.work / f"{kind}-{name}.state"
        state.mkdir(parents=True, exist_ok=True)
        label = f"experts/{kind}/{name}"
        objective = LanguageModelling(self.model)
        train(objective, rows, self.config.course(kind), state, name=label, seed=self.seed, metrics=self.metrics)
        self.model.cpu()
        shutil.rmtree(state)


@torch.no_grad()
def domain_losses(model: Any, lessons: Mapping[str, Sequence[Encoded]]) -> dict[str, float]:
    """Mean nats a token of what the assistant says in each domain's conversations.

    Raises `ConfigError` for a domain in which it says nothing.
    """
    if silent := [name for name, encoded in lessons.items() if not any(any(one.ours[1:]) for one in encoded)]:
        raise ConfigError(f"adas: no conversation of '{silent[0]}' has a turn of the assistant; give some")
    read = [(name, one) for name, encoded in lessons.items() for one in encoded]
    # Of like lengths together: little is padded.
    read.sort(key=lambda pair: len(pair[1].tokens))
    total, count = dict.fromkeys(lessons, 0.0), dict.fromkeys(lessons, 0)
    for batch in _batches([one for _, one in read]):
        nll = _nll(model, [read[i][1] for i in batch])
        for i, nll_N in zip(batch, nll, strict=True):
            total[read[i][0]] += float(nll_N.double().sum())
            count[read[i][0]] += len(nll_N)
    return {name: total[name] / count[name] for name in lessons}


def _batches(sorted_by_length: Sequence[Encoded]) -> list[list[int]]:
    """Indices of neighbours that make so many tokens together, padding included."""
    batches: list[list[int]] = [[]]
    for index, one in enumerate(sorted_by_length):
        if batches[-1] and (len(batches[-1]) + 1) * len(one.tokens) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def _nll(model: Any, batch: Sequence[Encoded]) -> list[torch.Tensor]:
    """For each conversation the nats of the assistant's tokens."""
    width = max(len(one.tokens) for one in batch)
    tokens_BT = torch.zeros(len(batch), width, dtype=torch.int64)
    ours_BT = torch.zeros(len(batch), width, dtype=torch.bool)
    for i, one in enumerate(batch):
        tokens_BT[i, : len(one.tokens)] = torch.tensor(one.tokens)
        ours_BT[i, : len(one.tokens)] = torch.tensor(one.ours)
    # Padded on the right, where a causal model does not look.
    device = model.get_output_embeddings().weight.device
    hidden_BTD = model.base_model(input_ids=tokens_BT[:, :-1].to(device), use_cache=False).last_hidden_state
    chosen_BT = ours_BT[:, 1:].to(device)
    target_N = tokens_BT[:, 1:].to(device)[chosen_BT]
    nll_N = row_nll(hidden_BTD[chosen_BT], model.get_output_embeddings().weight, target_N)
    return list(torch.split(nll_N, chosen_BT.sum(1).tolist()))
