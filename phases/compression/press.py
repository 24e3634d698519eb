"""One parent under the press: its options, a ladder of budgets, training in the compressed form, and what is written.

<work>/rung-<n>.state       where the training of one ratio stands
<work>/agent, untrained     artefacts of the ratio that was taken
<work>/plain                its decoded weights as a plain checkpoint
<work>/full_precision       the control
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from phases.agent.design import Mixture
from phases.agent.settings import SETTINGS, read_settings
from phases.architecture import check_head, check_vocabulary
from phases.bitnet.estimator import Quantised
from phases.bitnet.objective import Taught
from phases.bitnet.storage import is_ternary, open_latent
from phases.bitnet.tensors import embedding_names, ternary_names
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.allocation import BudgetError
from phases.compression.artefact import dequantise, write_artefact
from phases.compression.calibration import Calibration, held_out, importances
from phases.compression.config import CompressionConfig
from phases.compression.form import Form
from phases.compression.lessons import open_lessons, training_rows
from phases.compression.options import measure_options
from phases.compression.report import REPORT, CompressionReport, Rung, carried
from phases.compression.squeezes import squeezes
from phases.compression.staging import Plan, Staging
from phases.compression.standing import Standing, open_exams
from phases.compression.stored import Stored, check_storable
from phases.compression.ternary import Ternary
from phases.compression.thoughts import thoughts_of
from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.phase import MetricsCallback, is_finished
from phases.quiet_star.storage import load_thinker, thinking_files, thinks
from phases.training.loop import train
from phases.training.processes import device

AGENT, UNTRAINED, CONTROL, PLAIN = "agent", "untrained", "full_precision", "plain"
HEADER_SHARE, HEADER_LEAST = 0.02, 5_000
"""Of a budget: kept free for the file's header. The size of the file itself is what counts in the end."""


@dataclass(frozen=True)
class Pressed:
    """One ratio, trained."""

    rung: Rung
    stored: Stored
    plan: Plan


class Press:
    """Where one parent is compressed."""

    def __init__(
        self, parent: Checkpoint, data: Dataset, config: CompressionConfig, work: Path, metrics: MetricsCallback
    ) -> None:
        """Raises `CheckpointError` that names the tensor which codecs cannot handle, or for a model of other data."""
        self.parent, self.data, self.config, self.work, self.metrics = parent, data, config, work, metrics
        self.model: Any = parent.model().eval().requires_grad_(False)
        check_head(self.model, str(parent.path))
        check_vocabulary(self.model, parent.tokenizer(), data, str(parent.path))
        self.names = (*ternary_names(self.model), *embedding_names(self.model))
        self.quantised: Quantised | None = open_latent(parent) if is_ternary(parent.path) else None
        own = {} if self.quantised is None else self.quantised.latent()
        params = dict(self.model.named_parameters())
        self.latent = {name: own.get(name, params[name].detach().clone()) for name in self.names}
        check_storable({**params, **self.latent}, parent.path)
        self.thoughts = thoughts_of(parent.path)
        self.numbers = sum(p.numel() for p in params.values()) + self.thoughts.numbers
        self.lessons = open_lessons(parent, data, config)

    def make(self) -> None:
        """Everything that `run` hands on."""
        if not all(is_finished(self.work / name) for name in (AGENT, UNTRAINED, PLAIN)):
            self._write(self._ladder())
        if not is_finished(self.work / CONTROL):
            self._control()

    def staging(self) -> Staging:
        """The parent with all its options measured; options on few rows, whole models on more."""
        self.model.to(device())
        pad, config = int(self.parent.tokenizer().eos_token_id), self.config
        rows = {n: held_out(self.data, self.lessons, n, pad) for n in (config.calibration_rows, config.standing_rows)}
        few, many = (Calibration(self.model, rows[n]) for n in (config.calibration_rows, config.standing_rows))
        seen = importances(self.model, rows[config.calibration_rows])
        table = measure_options(self.model, self.latent, seen, few, config.codecs, config.seed)
        exams = open_exams(self.parent, self.data, self.lessons, config.standing_items, config.standing_blocks)
        standing = Standing(self.model, exams)
        return Staging(self.model, table, many, standing, seen, self.latent, config.codecs, config.seed)

    def _ladder(self) -> list[Pressed]:
        """Ratio after ratio, until one retains enough; those that nothing fits are passed over, unless all are.

        Each trains from the parent on: a plan's codebooks are fitted to its weights, and the control at equal bytes is
        the same plan without training. What was measured of the parent serves all of them.
        """
        staging = self.staging()
        found: list[Pressed] = []
        too_small: BudgetError | None = None
        for number, ratio in enumerate(self.config.ratios):
            try:
                found.append(self._press(number, ratio, staging, found))
            except BudgetError as error:
                too_small = error
                continue
            if found[-1].rung.accepted:
                break
        self.model.cpu()
        if not found:
            assert too_small is not None
            raise self._refused(too_small.least + staging.plain_bytes + self.thoughts.size)
        return found

    def _refused(self, needed: int) -> ConfigError:
        """Of ratios none of which leaves the bytes that are needed besides the header."""
        file = max(needed + HEADER_LEAST, math.ceil(needed / (1 - HEADER_SHARE)))
        fits, last = math.floor(100 * 4 * self.numbers / file) / 100, self.config.ratios[-1]
        return ConfigError(
            f"compression.ratios: {last:g} leaves {int(4 * self.numbers / last):,} bytes, and these codecs with their "
            f"side information, norms and the header need {file:,}; the largest ratio that fits is {fits:g}"
        )

    def _press(self, number: int, ratio: float, staging: Staging, known: Sequence[Pressed]) -> Pressed:
        """Allocate and train at one ratio; where a budget has room for nothing better, that was done before."""
        budget = int(4 * self.numbers / ratio)
        plan = staging.plan(budget - self.thoughts.size - max(HEADER_LEAST, int(HEADER_SHARE * budget)))
        same = next((one for one in known if one.plan.codecs == plan.codecs), None)
        if same is not None:
            changed = {"ratio": ratio, "budget": budget, "stages": plan.stages}
            return replace(same, rung=same.rung.model_copy(update=changed))
        before = plan.measured
        stored = self._train(f"rung-{number}", plan, staging.importances)
        after = staging.measure(stored.weights())
        trained = after[0] < before[0]
        if not trained:
            stored, after = plan.stored, before
        kept = after[1]
        rung = Rung(
            ratio=ratio,
            budget=budget,
            bytes=stored.bytes + self.thoughts.size,
            stages=plan.stages,
            untrained=before[0],
            trained=after[0],
            retention_untrained=before[1].mean,
            retention=kept.mean,
            stderr=kept.stderr,
            groups={group: share for group, (share, _) in kept.groups.items()},
            training_kept=trained,
            squeezed=squeezes(stored),
            accepted=kept.mean - self.config.sigmas * kept.stderr >= self.config.retention,
        )
        return Pressed(rung, stored, plan)

    def _train(self, name: str, plan: Plan, seen: Mapping[str, torch.Tensor]) -> Stored:
        """Train in the form of a plan, the parent its teacher."""
        model = self.parent.model()
        params = dict(model.named_parameters())
        for matrix, codec in plan.codecs.items():
            if isinstance(codec, Ternary):
                params[matrix].data.copy_(self.latent[matrix])
        rounded = self.quantised is not None and self.quantised.quantisation.activations
        form = Form(model, plan.codecs, plan.codebooks, plan.fixed, seen, rounded)
        self._teach(name, model, form.set_strength)
        return form.stored(self.config.codecs.scale_bits)

    def _teach(self, name: str, model: Any, set_strength: Any) -> None:
        folder = self.work / f"{name}.state"
        folder.mkdir(exist_ok=True)
        config = self.config
        warmup = config.warmup if self.quantised is None else 0.0
        objective = Taught(model, set_strength, warmup, config.distillation, self.parent.model())
        rows = training_rows(self.lessons, self.data, config)
        train(objective, rows, config.training, folder, name=name, seed=config.seed, metrics=self.metrics)
        model.cpu()
        shutil.rmtree(folder)

    def _write(self, found: list[Pressed]) -> None:
        """The ratio that was taken: the first that retains enough, else the one that retains most."""
        taken = max(range(len(found)), key=lambda i: (found[i].rung.accepted, found[i].rung.retention))
        best = found[taken]
        report = CompressionReport(
            config=self.config.model_dump(mode="json"),
            rungs=tuple(one.rung for one in found),
            taken=taken,
            carried=carried(best.stored, self.thoughts),
        )
        texts = {REPORT: report.model_dump_json(indent=2) + "\n", **self._settings()}
        made = {AGENT: best.stored, UNTRAINED: best.plan.stored}
        for name, stored in made.items():
            if not is_finished(self.work / name):
                write_artefact(
                    self.parent,
                    stored,
                    self.work / name,
                    phase=f"compression/{name}",
                    config=self.config.model_dump(mode="json"),
                    seed=self.config.seed,
                    data=(self.data.digest,),
                    metrics={"retention": best.rung.retention, "divergence": best.rung.trained},
                    texts=texts,
                )
        if not is_finished(self.work / PLAIN):
            manifest = self._manifest("compression", {"retention": best.rung.retention})
            dequantise(self.work / AGENT, self.work / PLAIN, manifest)

    def _settings(self) -> dict[str, str]:
        """An agent's own, without expert vectors, which are of the parent's latent weights."""
        if not (self.parent.path / SETTINGS).is_file():
            return {}
        settings = read_settings(self.parent.path)
        plain = settings.model_copy(update={"design": settings.design.model_copy(update={"mixture": Mixture()})})
        return {SETTINGS: plain.model_dump_json(indent=2) + "\n"}

    def _control(self) -> None:
        """What the same rows and steps bring to the parent in float32."""
        model = self.parent.model()
        self._teach(CONTROL, model, lambda strength: None)
        tensors, texts = thinking_files(*load_thinker(self.parent.path)) if thinks(self.parent.path) else ({}, {})
        manifest = self._manifest(f"compression/{CONTROL}", {})
        save_checkpoint(
            self.work / CONTROL, model.eval(), self.parent.tokenizer(), manifest, tensors=tensors, texts=texts
        )

    def _manifest(self, phase: str, metrics: Mapping[str, float]) -> Manifest:
        return Manifest(
            phase=phase,
            config=self.config.model_dump(mode="json"),
            seed=self.config.seed,
            parents=(self.parent.digest,),
            data=(self.data.digest,),
            metrics=dict(metrics),
        )
