"""A model that trains in its compressed form: each matrix is what its codec would store, the gradient is the latent's.

    form = Form(model, {"model.embed_tokens.weight": VPTQ(vector=6), "….q_proj.weight": Ternary()}, latent)
    form.model(tokens)                  # computes with what would be decoded
    form.stored(scale_bits=8)           # `Stored`, whose weights are those that it computes with but for its scales

Ternary codes and scales are made anew from the latent weights at every step (straight-through, arXiv 1308.3432), and so
are the codes of a codebook, whose centroids train with them: a centroid's gradient is the sum over the vectors that it
serves (arXiv 1711.00937 without the commitment term, as the latent weights get the same gradient). What SeedLM and
hyper-compression encode stays as it was encoded, and trains no more. Activations of ternary layers are rounded to 8
bits while training, where their kernels will.

Shapes: O outputs, I inputs, N vectors of V weights, K centroids.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from phases.bitnet.estimator import RoundedInputs, straight_through
from phases.compression.codec import Encoded
from phases.compression.kmeans import nearest, sum_of
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import LARGEST, VPTQ
from phases.errors import ConfigError

Importances = Mapping[str, torch.Tensor]


class Codebook(nn.Module):
    """(K, V) centroids that train."""

    def __init__(self, codebook_KV: torch.Tensor) -> None:
        super().__init__()
        self.centroids_KV = nn.Parameter(codebook_KV.float().clone())


class _Rounded(nn.Module):
    """Ternary codes of a latent weight."""

    def __init__(self, codec: Ternary) -> None:
        super().__init__()
        self.codec, self.strength = codec, 1.0

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        """(O, I) what the model computes with."""
        return straight_through(latent_OI, self.codec.round(latent_OI).dequantise().to(latent_OI.dtype), self.strength)


class _Quantised(nn.Module):
    """Runs of weights of a row as centroids."""

    importance_I: torch.Tensor | None

    def __init__(self, codec: VPTQ, codebook: Codebook, importance_I: torch.Tensor | None) -> None:
        super().__init__()
        self.codec, self.strength = codec, 1.0
        self.register_buffer("importance_I", importance_I, persistent=False)
        # In a tuple, so that the shared codebook is a parameter of one module only.
        self._shared = (codebook,)

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        """(O, I) what the model computes with."""
        x_NV, weight_NV, scale_S = self.codec.vectors(latent_OI, self.importance_I)
        centroids_KV = self._shared[0].centroids_KV
        # In half precision, as autocast would have it, other centroids are the nearest than those that are stored.
        with torch.autocast(latent_OI.device.type, enabled=False):
            codes_N = nearest(x_NV, centroids_KV.detach(), weight_NV)
        served_NV = sum_of(centroids_KV[None], codes_N[None])
        found_OI = served_NV.flatten()[: latent_OI.numel()].view_as(latent_OI) * scale_S.float()[:, None]
        served_OI = straight_through(latent_OI, found_OI, self.strength)
        # The latent's gradient is the identity's; the centroids' comes through what was gathered.
        return served_OI + self.strength * (found_OI - found_OI.detach())


class _Fixed(nn.Module):
    """A weight that was encoded once."""

    def __init__(self, weight_OI: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_OI", weight_OI, persistent=False)
        self.strength = 1.0

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        """(O, I): the latent's gradient is nothing."""
        weight_OI = self.get_buffer("weight_OI")
        return torch.lerp(latent_OI.detach(), weight_OI, self.strength)


class Form:
    """A model in its compressed form, from here until `stored`."""

    def __init__(
        self,
        model: Any,
        codecs: Mapping[str, Coding],
        codebooks: Mapping[VPTQ, torch.Tensor],
        fixed: Mapping[str, Encoded],
        importances: Importances,
        activations: bool,
    ) -> None:
        """Parametrise `model`, which has the latent weights. `fixed`: what SeedLM and hyper-compression encoded.

        Raises `ValueError` for a matrix that the model does not have, and `ConfigError` for VPTQ with residual
        codebooks or outlier columns, which would not be trained and so be lost.
        """
        self.model, self.codecs, self.fixed, self.importances = model, dict(codecs), dict(fixed), importances
        self.latent = {n: p for n, p in model.named_parameters() if n in codecs}
        missing = sorted(codecs.keys() - self.latent.keys())
        if missing:
            raise ValueError(f"{missing[0]}: no parameter of a {type(model).__name__}")
        for codec in codebooks:
            if codec.residuals or codec.outliers:
                raise ConfigError(
                    f"VPTQ with {codec.residuals} residual codebooks and outliers {codec.outliers:g}: a model trains "
                    "with one codebook and no outliers; set residuals and outliers to 0, or only encode"
                )
        self.codebooks = nn.ModuleList(Codebook(book[0]) for book in codebooks.values())
        self._books = dict(zip(codebooks, self.codebooks, strict=True))
        # Where the optimizer finds them.
        model.codebooks = self.codebooks
        self._modules = [(m, n) for m in model.modules() if (n := self._name(m))]
        # Not of a head or an embedding: no kernel rounds what goes into those.
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        ternary = [m for m, name in self._modules if isinstance(codecs[name], Ternary) and m not in ends]
        self.inputs = RoundedInputs(model, ternary if activations else [])
        made: dict[str, nn.Module] = {}
        for module, name in self._modules:
            if name not in made:
                made[name] = self._parametrisation(name)
            parametrize.register_parametrization(module, "weight", made[name], unsafe=True)
        self._made = made

    def _name(self, module: nn.Module) -> str:
        weight = module._parameters.get("weight")
        return next((name for name, p in self.latent.items() if p is weight), "")

    def _parametrisation(self, name: str) -> nn.Module:
        codec = self.codecs[name]
        if isinstance(codec, Ternary):
            return _Rounded(codec)
        if isinstance(codec, VPTQ):
            book = self._books[codec]
            assert isinstance(book, Codebook)
            return _Quantised(codec, book, self.importances.get(name))
        return _Fixed(codec.decode(self.fixed[name]))

    def set_strength(self, strength: float) -> None:
        """Of all codecs and of rounded activations, 0 (the latent weights) to 1 (the compressed form)."""
        self.inputs.strength = strength
        for module in self._made.values():
            module.strength = strength  # type: ignore[assignment]

    @torch.no_grad()
    def stored(self, scale_bits: int) -> Stored:
        """What a file would hold of the model as it is now."""
        books = {
            codec: book.centroids_KV.detach().clamp(-LARGEST, LARGEST).half()[None].cpu()
            for codec, book in self._books.items()
            if isinstance(book, Codebook)
        }
        encoded = {}
        for name, codec in self.codecs.items():
            latent_OI = self.latent[name].detach().cpu()
            if isinstance(codec, Ternary):
                encoded[name] = codec.encode(latent_OI)
            elif isinstance(codec, VPTQ):
                found = codec.assign(latent_OI, books[codec], self.importances.get(name))
                encoded[name] = squeezed(found, codec, scale_bits)
            else:
                encoded[name] = self.fixed[name]
        own = {id(p) for p in (*self.latent.values(), *self.codebooks.parameters())}
        plain = {_plain(n): p.detach().half().cpu() for n, p in self.model.named_parameters() if id(p) not in own}
        return Stored(self.codecs, encoded, books, plain)

    def fold(self) -> Any:
        """The model as a plain one again, with the weights that it computed with."""
        self.set_strength(1.0)
        self.inputs.remove()
        # All of them before any is put back: a codebook's codes of what it has decoded are others, in a tied head too.
        with torch.no_grad():
            weights = {name: module.weight.clone() for module, name in self._modules}
        for module, _ in self._modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        for name, weight_OI in weights.items():
            self.latent[name].data.copy_(weight_OI)
        del self.model.codebooks
        self.model.tie_weights()
        return self.model


def _plain(name: str) -> str:
    return name.replace("parametrizations.weight.original", "weight")
