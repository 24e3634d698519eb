"""VPTQ against loops that read its bits, its bits against their formula, and its errors against measured ones."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phases.compression.codec import Codec, Encoded, relative_error
from phases.compression.vptq import VPTQ

SMALL = VPTQ(vector=4, codebook_size=16, iterations=5)
FULL = VPTQ(vector=3, codebook_size=5, residuals=1, outliers=0.25, iterations=5, beam=3)


def gauss(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def importance(width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(100 + seed)).exp()


def read_bits(packed: torch.Tensor, bits: int, count: int) -> list[int]:
    number = sum(byte << 8 * k for k, byte in enumerate(packed.tolist()))
    return [number >> bits * n & (1 << bits) - 1 for n in range(count)]


def read_by_hand(encoded: Encoded, codec: VPTQ) -> list[list[float]]:
    """Weights from the stored tensors, one at a time."""
    (rows, width), stored = encoded.shape, encoded.tensors
    columns = []
    if "columns" in stored:
        columns = read_bits(stored["columns"], math.ceil(math.log2(width)), stored["outliers"].shape[1])
    kept = [i for i in range(width) if i not in columns]
    count = -(-rows * len(kept) // codec.vector)
    stages = 1 + codec.residuals
    codes = read_bits(stored["codes"], math.ceil(math.log2(codec.codebook_size)), stages * count)
    weight = [[0.0] * width for _ in range(rows)]
    for o in range(rows):
        scale = stored["scales"][o if codec.scales == "row" else 0].item()
        for place, i in enumerate(kept, o * len(kept)):
            n, j = divmod(place, codec.vector)
            weight[o][i] = scale * sum(stored["codebook"][r, codes[r * count + n], j].item() for r in range(stages))
        for c, i in enumerate(columns):
            weight[o][i] = stored["outliers"][o, c].item()
    return weight


@pytest.mark.parametrize("codec", [SMALL, FULL, replace(FULL, scales="matrix"), replace(SMALL, codebook_size=300)])
@pytest.mark.parametrize("shape", [(8, 16), (5, 13)])
def test_decoding_equals_a_loop_over_the_bits(codec: VPTQ, shape: tuple[int, int]) -> None:
    encoded = codec.encode(gauss(*shape), importance(shape[1]))
    torch.testing.assert_close(codec.decode(encoded), torch.tensor(read_by_hand(encoded, codec)))


def test_codes_are_the_nearest_by_importance_of_what_is_stored() -> None:
    weight, h = gauss(6, 10), importance(10)
    encoded = SMALL.encode(weight, h)
    book = encoded.tensors["codebook"][0].tolist()
    places = [(o, i) for o in range(6) for i in range(10)]
    for n, code in enumerate(read_bits(encoded.tensors["codes"], 4, 15)):
        costs = []
        for centre in book:
            run = zip(places[4 * n : 4 * n + 4], centre, strict=True)
            costs.append(
                sum(h[i].item() * (weight[o, i].item() - encoded.tensors["scales"][o].item() * c) ** 2
                    for (o, i), c in run)
            )  # fmt: skip
        assert costs[code] == pytest.approx(min(costs), rel=1e-4)


def test_outliers_are_the_columns_of_most_weighted_energy() -> None:
    weight, h = gauss(8, 20), importance(20)
    weight[:, 3] *= 20
    h[11] = 1e4
    codec = replace(SMALL, outliers=0.1)
    encoded = codec.encode(weight, h)
    assert read_bits(encoded.tensors["columns"], 5, 2) == [3, 11]
    assert torch.equal(codec.decode(encoded)[:, [3, 11]], weight[:, [3, 11]].half().float())
    assert relative_error(weight, codec.decode(encoded), h) < relative_error(weight, SMALL.decode(SMALL.encode(weight)))


@pytest.mark.parametrize(
    ("codec", "shape", "bits"),
    [
        (VPTQ(iterations=1), (128, 128), 1 + 16 / 128 + 2),  # the codebook alone costs two bits
        (VPTQ(scales="matrix", iterations=1), (128, 128), 1 + 16 / 128**2 + 2),
        (VPTQ(4, 16, iterations=1), (32, 64), 1 + 16 / 64 + 16 * 16 * 4 / 2048),
        (VPTQ(4, 16, residuals=2, iterations=1), (32, 64), 3 + 16 / 64 + 3 * 16 * 16 * 4 / 2048),
        # One column of 64: 504 vectors, 16 bits a weight of it, and 6 bits for its place, which fill a byte.
        (VPTQ(4, 16, outliers=0.02, iterations=1), (32, 64), (504 * 4 + 512 + 512 + 8 + 1024) / 2048),
        (VPTQ(3, 5, iterations=1), (5, 7), (5 * 8 + 5 * 16 + 5 * 3 * 16) / 35),  # 12 vectors of 3 bits are 5 bytes
    ],
)
def test_bits_a_weight_are_the_formula(codec: VPTQ, shape: tuple[int, int], bits: float) -> None:
    assert codec.encode(gauss(*shape)).bits_a_weight == pytest.approx(bits, rel=1e-12)


@given(
    st.integers(1, 9), st.integers(1, 20), st.integers(1, 9), st.integers(2, 20), st.integers(0, 2),
    st.floats(0, 0.99), st.sampled_from(["row", "matrix"]), st.floats(1e-9, 1e3),
)  # fmt: skip
def test_any_shape_comes_back(
    rows: int, width: int, vector: int, size: int, residuals: int, outliers: float, scales: Any, scale: float
) -> None:
    codec = VPTQ(vector, size, residuals, outliers, scales, iterations=2, beam=2)
    weight = gauss(rows, width, size) * scale
    encoded = codec.encode(weight, importance(width) if size % 2 else None)
    found = codec.decode(encoded)
    assert found.shape == weight.shape and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert scale < 1e-5 or relative_error(weight, found) < 1.5


@pytest.mark.parametrize(
    ("codec", "width", "error"), [(VPTQ(4, iterations=8), 256, 0.097), (VPTQ(8, iterations=8), 512, 0.327)]
)
def test_new_gaussian_weights_have_the_measured_error(codec: VPTQ, width: int, error: float) -> None:
    """By a codebook of other weights: one of its own, for so few, learns them by heart."""
    book = codec.fit({"w": gauss(256, width)})
    weight = gauss(64, 256, 1)
    found = relative_error(weight, codec.decode(codec.assign(weight, book), book))
    assert found == pytest.approx(error, rel=0.06)
    assert found > 2 ** (-2 * 8 / codec.vector)  # Shannon


def test_two_codebooks_searched_together_beat_one_after_the_other() -> None:
    codec = VPTQ(8, 64, residuals=1, iterations=8)
    book, weight = codec.fit({"w": gauss(128, 256)}), gauss(64, 128, 1)
    together, apart = (
        relative_error(weight, c.decode(c.assign(weight, book), book)) for c in (codec, replace(codec, beam=1))
    )
    assert 2 ** (-2 * 12 / 8) < together < 0.95 * apart


def test_importance_lowers_the_weighted_error() -> None:
    weight, h = gauss(64, 64), importance(64)
    weighted, plain = (SMALL.decode(SMALL.encode(weight, given)) for given in (h, None))
    assert relative_error(weight, weighted, h) < 0.8 * relative_error(weight, plain, h)
    assert relative_error(weight, weighted) > relative_error(weight, plain)
    for scaled in (h * 1e-30, h * 1e30):
        assert torch.equal(SMALL.decode(SMALL.encode(weight, scaled)), weighted)


def test_inputs_of_no_importance_still_get_weights() -> None:
    weight = gauss(16, 16)
    h = torch.ones(16)
    h[::4] = 0
    assert relative_error(weight[:, ::4], SMALL.decode(SMALL.encode(weight, h))[:, ::4]) < 1
    zeros = SMALL.encode(weight, torch.zeros(16))
    assert torch.equal(SMALL.decode(zeros), SMALL.decode(SMALL.encode(weight)))


def test_seeds_are_followed_and_lie_close_together() -> None:
    weight = gauss(64, 64)
    errors = []
    for seed in range(5):
        first, second = SMALL.encode(weight, seed=seed), SMALL.encode(weight, seed=seed)
        assert all(torch.equal(first.tensors[n], second.tensors[n]) for n in first.tensors)
        errors.append(relative_error(weight, SMALL.decode(first)))
    assert len(set(errors)) == 5 and max(errors) < 1.05 * min(errors)


def test_zero_rows_are_exact() -> None:
    weight = gauss(8, 8)
    weight[2:4] = 0
    assert not SMALL.decode(SMALL.encode(weight))[2:4].any()
    assert not SMALL.decode(SMALL.encode(torch.zeros(4, 4))).any()


def test_rows_of_their_own_size_need_scales() -> None:
    weight = gauss(64, 64) * torch.logspace(-3, 3, 64)[:, None]
    part = weight[:32]
    assert relative_error(part, SMALL.decode(SMALL.encode(weight))[:32]) < 0.5
    whole = replace(SMALL, scales="matrix")
    assert relative_error(part, whole.decode(whole.encode(weight))[:32]) > 0.9


MATRICES = {"up": gauss(16, 32, 1) * 0.02, "down": gauss(32, 16, 2) * 3, "odd": gauss(5, 7, 3)}
HESSIANS = {"up": importance(32), "down": importance(16)}


def test_one_codebook_serves_many_matrices_and_is_stored_once() -> None:
    shared = SMALL.encode_together(MATRICES, HESSIANS, seed=1)
    assert shared.bytes == 2 * 16 * 4 + sum(e.bytes for e in shared.matrices.values())
    assert shared.bits_a_weight == 8 * shared.bytes / (512 + 512 + 35)
    assert all("codebook" not in e.tensors for e in shared.matrices.values())
    assert shared.bytes < sum(SMALL.encode(w).bytes for w in MATRICES.values())
    for name, weight in MATRICES.items():
        found = SMALL.decode(shared.matrices[name], shared.codebook_RKV)
        assert relative_error(weight, found, HESSIANS.get(name)) < 0.4  # of whatever size the weights are
    with pytest.raises(ValueError, match="shares a codebook: give it"):
        SMALL.decode(shared.matrices["up"])


def test_a_matrix_alone_is_the_special_case() -> None:
    alone = FULL.encode(MATRICES["up"], HESSIANS["up"], seed=3)
    shared = FULL.encode_together({"w": MATRICES["up"]}, {"w": HESSIANS["up"]}, seed=3)
    assert torch.equal(FULL.decode(alone), FULL.decode(shared.matrices["w"], shared.codebook_RKV))
    assert alone.bytes == shared.bytes and alone.bits_a_weight == shared.bits_a_weight


def test_a_codebook_is_fitted_to_a_sample_and_then_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = gauss(64, 64)
    exact = SMALL.fit({"w": weight})
    monkeypatch.setattr("phases.compression.vptq.SAMPLES_A_CODE", 8)
    sampled = SMALL.fit({"w": weight})
    assert torch.equal(sampled, SMALL.fit({"w": weight})) and not torch.equal(sampled, exact)
    errors = [relative_error(weight, SMALL.decode(SMALL.assign(weight, b), b)) for b in (exact, sampled)]
    assert errors[1] < 1.15 * errors[0]


def weighted_loss(codec: VPTQ, encoded: Any, book: torch.Tensor) -> torch.Tensor:
    """Each matrix relative to its energy, by its number of weights, as the codec counts them: without the outliers."""
    total = torch.zeros(())
    for name, weight in MATRICES.items():
        h, found = HESSIANS.get(name, torch.ones(weight.shape[1])), codec.unpack(encoded[name])
        kept = torch.ones(weight.shape[1])
        kept[found.columns_C] = 0
        energy = (weight.square() * h * kept).sum() / (kept.sum() * len(weight))
        total = total + ((weight - found.weight(book)).square() * h * kept).sum() / energy
    return total


@pytest.mark.parametrize("codec", [SMALL, FULL])
def test_the_gradient_of_the_codebook_is_zero_where_it_is_refitted(codec: VPTQ) -> None:
    shared = codec.encode_together(MATRICES, HESSIANS)
    damaged = replace(shared, codebook_RKV=shared.codebook_RKV + 0.3)
    books = [s.codebook_RKV.float().requires_grad_() for s in (damaged, codec.refit(MATRICES, damaged, HESSIANS))]
    losses = [weighted_loss(codec, shared.matrices, book) for book in books]
    slopes = [torch.autograd.grad(loss, book)[0].abs().max() for loss, book in zip(losses, books, strict=True)]
    assert slopes[1] < 0.02 * slopes[0]
    assert losses[1] <= weighted_loss(codec, shared.matrices, shared.codebook_RKV.float()) * (1 + 1e-5)


def test_centroids_are_trained_through_the_decoding() -> None:
    encoded = FULL.encode(MATRICES["up"])
    found, book = FULL.unpack(encoded), encoded.tensors["codebook"].float().requires_grad_()
    assert torch.equal(found.weight(book), FULL.decode(encoded))
    x, before = gauss(64, 4, 9) @ gauss(4, 32, 10), None  # inputs that are correlated, as the diagonal cannot say
    optimizer = torch.optim.Adam([book], lr=0.01)
    for _ in range(30):
        loss = (x @ (found.weight(book) - MATRICES["up"]).T).square().mean()
        before = before or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before is not None and loss.item() < 0.9 * before
    trained = FULL.decode(encoded, book.detach().half())
    assert (x @ (trained - MATRICES["up"]).T).square().mean() < 0.9 * before


def test_half_precision_weights_are_encoded_as_they_are() -> None:
    weight = gauss(8, 16).bfloat16()
    assert torch.equal(FULL.decode(FULL.encode(weight)), FULL.decode(FULL.encode(weight.float())))


def test_it_is_a_codec() -> None:
    codec: Codec = SMALL
    assert codec.name == codec.encode(gauss(4, 4)).codec == "vptq"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vector": 0}, "vector 0: from 1 to 64"),
        ({"codebook_size": 1}, "codebook_size 1: from 2 to 65,536"),
        ({"residuals": -1}, "residuals -1"),
        ({"beam": 0}, "beam 0"),
        ({"iterations": 0}, "iterations 0"),
        ({"outliers": 1.0}, "outliers 1.0: a share"),
        ({"outliers": math.nan}, "outliers nan"),
        ({"scales": "column"}, "scales 'column'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VPTQ(**settings)


def test_bad_weights_are_refused() -> None:
    for weight in (torch.zeros(3), torch.zeros(0, 3), torch.full((2, 2), torch.inf)):
        with pytest.raises(ValueError, match="not a finite matrix"):
            SMALL.encode(weight)
    with pytest.raises(ValueError, match="larger than 65504"):
        SMALL.encode(torch.full((2, 2), 1e5))
    for h in (torch.ones(3), -torch.ones(4)):
        with pytest.raises(ValueError, match="one >= 0 an input"):
            SMALL.encode(gauss(4, 4), h)
    with pytest.raises(ValueError, match="0 matrices"):
        SMALL.encode_together({})
    with pytest.raises(ValueError, match=r"importances of \['typo'\] besides"):
        SMALL.encode_together(MATRICES, {"typo": torch.ones(4)})
    shared = SMALL.encode_together(MATRICES)
    with pytest.raises(ValueError, match="the same are needed"):
        SMALL.refit({"up": MATRICES["up"]}, shared)
    with pytest.raises(ValueError, match="up: codes of shape"):
        SMALL.refit({**MATRICES, "up": MATRICES["down"]}, shared)


STORED = FULL.encode(gauss(6, 9))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("codes", None, "codes missing"),
        ("codes", STORED.tensors["codes"][:-1], "codes missing, left over or of another size"),
        ("codes", STORED.tensors["codes"].to(torch.int8), "codes missing"),
        ("codes", torch.full_like(STORED.tensors["codes"], 255), "codes: 7 is among them, under 5|behind the end"),
        ("scales", STORED.tensors["scales"].float(), "scales missing"),
        ("scales", -STORED.tensors["scales"], "negative"),
        ("scales", STORED.tensors["scales"] * torch.nan, "not finite"),
        ("outliers", STORED.tensors["outliers"][:, 1:], "outliers missing"),
        ("outliers", STORED.tensors["outliers"] / 0, "not finite"),
        ("columns", torch.tensor([0x99], dtype=torch.uint8), "columns: 9 is among them, under 9"),
        ("columns", torch.tensor([0x22], dtype=torch.uint8), "do not ascend"),
        ("codebook", None, "give it"),
        ("codebook", STORED.tensors["codebook"][:1], "a codebook torch.float16"),
        ("codebook", STORED.tensors["codebook"].float(), "a codebook torch.float32"),
        ("codebook", STORED.tensors["codebook"] * torch.inf, "a centroid is not finite"),
        ("further", torch.zeros(1), "further missing, left over"),
    ],
)
def test_damage_is_refused(name: str, value: torch.Tensor | None, reason: str) -> None:
    tensors = {n: t for n, t in STORED.tensors.items() if n != name}
    if value is not None:
        tensors[name] = value
    with pytest.raises(ValueError, match=reason):
        FULL.decode(replace(STORED, tensors=tensors))


def test_columns_fill_one_byte_and_other_encodings_are_refused() -> None:
    assert STORED.tensors["columns"].shape == (1,)  # two of nine, at 4 bits
    for changed in (replace(STORED, codec="seedlm"), replace(STORED, shape=(6, 9, 1)), replace(STORED, shape=(6, 8))):
        with pytest.raises(ValueError, match="a matrix of vptq is needed|another size"):
            FULL.decode(changed)
    with pytest.raises(ValueError, match=r"float16 \(1, 16, 4\) is needed"):
        SMALL.decode(STORED)
    tail = SMALL.encode(gauss(1, 4))  # one code of 4 bits
    spoilt = tail.tensors["codes"] | 0x80
    with pytest.raises(ValueError, match="bits stand behind the end"):
        SMALL.decode(replace(tail, tensors={**tail.tensors, "codes": spoilt}))
