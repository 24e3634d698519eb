"""Hyper-compression against plain loops over all points, its bound and its figures, and refusal of other tensors."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.compression.codec import Codec, Encoded, relative_error
from phases.compression.hyper import LEAST_IMPORTANCE, Hyper
from phases.compression.korobov import covering_radius, generator, points

CODECS = [
    Hyper(),
    Hyper(bits=3, classes=1, group=8, clip=False),
    Hyper(bits=5.5, classes=4, group=None, centred=True),
    Hyper(bits=2, dimension=3, group=6, centred=True),
    Hyper(bits=2, dimension=4, group=None, classes=8, stretch=1.3),
]


def gaussian(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def importances(width: int, spread: float = 1.0) -> torch.Tensor:
    return (gaussian(1, width, 1)[0] * spread).exp()


def by_hand_points(dimension: int, size: int) -> list[list[float]]:
    """The trajectory, one step at a time."""
    direction = [generator(dimension, size) ** k for k in range(dimension)]
    return [[2 * (((theta - size // 2) * a + size // 2) % size / size) - 1 for a in direction] for theta in range(size)]


def by_hand_codes(codec: Hyper, encoded: Encoded) -> list[list[int]]:
    rows, width = encoded.shape
    blocks, bits = math.ceil(width / codec.dimension), round(codec.dimension * codec.bits)
    whole = int.from_bytes(bytes(encoded.tensors["codes"].tolist()), "little")
    codes = [whole >> bits * k & (2**bits - 1) for k in range(rows * blocks)]
    return [codes[o * blocks : (o + 1) * blocks] for o in range(rows)]


def by_hand_box(codec: Hyper, encoded: Encoded, o: int, j: int) -> tuple[float, float]:
    """Scale and centre of a block."""
    at = (0, 0) if codec.group is None else (o, j * codec.dimension // codec.group)
    scales = encoded.tensors["scales"]
    return scales[at].item(), encoded.tensors["centres"][at].item() if codec.centred else 0.0


def by_hand_decode(codec: Hyper, encoded: Encoded) -> list[list[float]]:
    places, found = by_hand_points(codec.dimension, codec.size), []
    for o, codes in enumerate(by_hand_codes(codec, encoded)):
        row: list[float] = []
        for j, code in enumerate(codes):
            scale, centre = by_hand_box(codec, encoded, o, j)
            box = scale * codec.stretch ** (code // codec.size)
            row += [centre + box * x for x in places[code % codec.size]]
        found.append(row[: encoded.shape[1]])
    return found


def by_hand_least(codec: Hyper, w: list[float], h: list[float], scale: float, centre: float) -> float:
    """The least error of a block over all points of all classes."""
    boxes = [scale * codec.stretch**k for k in range(codec.classes)]
    candidates = itertools.product(boxes, by_hand_points(codec.dimension, codec.size))
    return min(
        sum(hc * (x - centre - box * y) ** 2 for hc, x, y in zip(h, w, place, strict=False))
        for box, place in candidates
    )


def blockwise(codec: Hyper, x_OI: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(x_OI, (0, -x_OI.shape[1] % codec.dimension))
    return padded.view(len(x_OI), -1, codec.dimension)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("shape", [(3, 24), (5, 29), (1, 1)])
def test_decoding_equals_a_loop(codec: Hyper, shape: tuple[int, int]) -> None:
    weight = gaussian(*shape) * 0.02 + 0.01
    encoded = codec.encode(weight)
    found = codec.decode(encoded)
    assert found.shape == shape and found.dtype == torch.float32 and found.is_contiguous()
    torch.testing.assert_close(found, torch.tensor(by_hand_decode(codec, encoded)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("h", [None, 1.0, 4.0], ids=["alike", "different", "very different"])
def test_the_nearest_point_of_all_is_found(codec: Hyper, h: float | None) -> None:
    """Also for weights at the edge of the boxes and far outside."""
    weight = gaussian(2, 24) * 0.02
    weight[0, 3], weight[1, 10] = 0.3, -0.09
    given_I = torch.ones(24) if h is None else importances(24, h)
    encoded = codec.encode(weight, None if h is None else given_I)
    found = blockwise(codec, codec.decode(encoded))
    h_JD = blockwise(codec, given_I[None])[0]
    floored_JD = h_JD.maximum(LEAST_IMPORTANCE * h_JD.amax(1, keepdim=True))
    w_OJD = blockwise(codec, weight)
    for o, j in itertools.product(range(2), range(w_OJD.shape[1])):
        least = by_hand_least(codec, w_OJD[o, j].tolist(), floored_JD[j].tolist(), *by_hand_box(codec, encoded, o, j))
        error = ((w_OJD[o, j] - found[o, j]).double().square() * floored_JD[j]).sum().item()
        assert error == pytest.approx(least, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(("dimension", "size"), [(2, 4), (2, 8), (2, 64), (2, 128), (3, 32), (4, 16), (4, 128)])
def test_the_generator_keeps_its_points_furthest_apart(dimension: int, size: int) -> None:
    def distance(g: int) -> int:
        powers = [pow(g, k, size) for k in range(dimension)]
        steps = [[theta * power % size for power in powers] for theta in range(1, size)]
        return min(sum(min(x, size - x) ** 2 for x in step) for step in steps)

    distances = [distance(g) for g in range(1, size // 2 + 1)]
    assert generator(dimension, size) == 1 + distances.index(max(distances))


@pytest.mark.parametrize(("dimension", "size"), [(2, 4), (2, 256), (3, 64), (4, 64)])
def test_all_points_are_different_and_zero_is_one(dimension: int, size: int) -> None:
    found = points(dimension, size)
    assert found.tolist() == by_hand_points(dimension, size)
    assert len({tuple(p) for p in found.tolist()}) == size and not found[size // 2].any()


@pytest.mark.parametrize(("dimension", "size"), [(2, 4), (2, 128), (3, 64), (4, 16)])
def test_the_covering_radius_is_that_of_many_places(dimension: int, size: int) -> None:
    axis = torch.linspace(-1, 1, round(40_000 ** (1 / dimension)))  # from corner to corner
    distance = torch.cdist(torch.cartesian_prod(*[axis] * dimension), points(dimension, size)).amin(1).max().item()
    assert distance <= covering_radius(dimension, size) < (1.04 if dimension == 2 else 1.15) * distance


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("spread", [None, 2.0])
def test_no_block_is_further_than_its_bound(codec: Hyper, spread: float | None) -> None:
    weight = gaussian(32, 63, 3) * gaussian(32, 63, 4).exp()  # with tails that are cut off
    h_I = torch.ones(63) if spread is None else importances(63, spread)
    encoded = codec.encode(weight, None if spread is None else h_I)
    h_JD = blockwise(codec, h_I[None])[0]
    error_OJD = blockwise(codec, (weight - codec.decode(encoded)).square())
    error_OJ = ((error_OJD * h_JD).sum(2) / h_JD.amax(1)).sqrt()
    bound_OJ = codec.bounds(weight, encoded)
    assert bool((error_OJ <= bound_OJ * (1 + 1e-5)).all())
    tight = codec.dimension == 2 and spread is None
    assert float((error_OJ / bound_OJ).max()) > (0.8 if tight else 0.2)  # so that the line above says something


def test_without_clipping_the_bound_is_the_covering_radius_alone() -> None:
    weight, codec = gaussian(8, 64), Hyper(classes=1, group=16, clip=False)
    encoded = codec.encode(weight)
    scale_OG = encoded.tensors["scales"].float()
    torch.testing.assert_close(scale_OG, weight.view(8, 4, 16).abs().amax(2), rtol=5e-4, atol=0)
    expected = (scale_OG * covering_radius(2, 256)).repeat_interleave(8, 1)
    torch.testing.assert_close(codec.bounds(weight, encoded), expected, rtol=3e-3, atol=0)


@pytest.mark.parametrize(
    ("codec", "shape", "bits"),
    [
        (Hyper(), (32, 256), 4 + 16 / 128),
        (Hyper(group=None), (32, 64), 4 + 16 / 2048),
        (Hyper(bits=5, group=32, centred=True), (8, 64), 5 + 32 / 32),
        (Hyper(bits=3, dimension=3, group=None), (16, 60), 3 + 16 / 960),
        (Hyper(bits=3.5, group=None, classes=1), (16, 63), 3.5 * 64 / 63 + 16 / 1008),
    ],
    ids=str,
)
def test_bits_are_those_of_codes_scales_and_centres(codec: Hyper, shape: tuple[int, int], bits: float) -> None:
    encoded = codec.encode(gaussian(*shape))
    assert encoded.bits_a_weight == pytest.approx(bits)
    assert encoded.bytes == sum(len(t.numpy().tobytes()) for t in encoded.tensors.values())


@pytest.mark.parametrize(
    ("codec", "error"),
    [
        (Hyper(), 0.00925),
        (Hyper(group=None), 0.0101),
        (Hyper(group=None, classes=1), 0.0111),
        (Hyper(group=None, stretch=2.0), 0.0107),
        (Hyper(group=None, classes=1, clip=False), 0.0262),
        (Hyper(group=None, bits=2), 0.138),
        (Hyper(group=None, bits=3), 0.0372),
        (Hyper(group=None, bits=5), 0.0027),
    ],
    ids=str,
)
def test_gaussian_weights_have_the_measured_error(codec: Hyper, error: float) -> None:
    weight = gaussian(256, 256) * 0.02
    encoded = codec.encode(weight)
    found = relative_error(weight, codec.decode(encoded))
    assert found == pytest.approx(error, rel=0.03)
    assert found > 2 ** (-2 * encoded.bits_a_weight)  # Shannon's bound


def test_three_dimensions_are_better_than_two() -> None:
    weight = gaussian(64, 96)
    errors = [relative_error(weight, c.decode(c.encode(weight))) for c in (Hyper(), Hyper(dimension=3, group=129))]
    assert errors[1] < 0.97 * errors[0]


def test_classes_serve_heavy_tails() -> None:
    weight = gaussian(128, 128, 1) * gaussian(128, 128, 2).exp()
    codecs = [Hyper(group=None, classes=classes) for classes in (1, 2, 4)]
    one, two, four = (relative_error(weight, c.decode(c.encode(weight))) for c in codecs)
    assert two < 0.85 * one and four < 0.85 * two


@pytest.mark.parametrize("codec", CODECS[:3], ids=str)
def test_the_scale_is_near_the_best(codec: Hyper) -> None:
    """Of scales around the one that was chosen, none errs much less."""
    weight, codec = gaussian(64, 64), replace(codec, group=None, clip=True)
    encoded, errors = codec.encode(weight), []
    scale, centre = encoded.tensors["scales"], encoded.tensors.get("centres", torch.zeros(1, 1))
    for k in range(-8, 9):
        other = (scale * 1.04**k).half()
        code_OJ = codec._search(codec._relative(weight, centre, other), torch.ones(32, 2).double())
        unit = points(2, codec.size)[code_OJ % codec.size] * codec.stretch ** (code_OJ // codec.size)[..., None]
        errors.append(relative_error(weight, (unit * other.float() + centre.float()).view(64, 64)))
    assert errors[8] == pytest.approx(relative_error(weight, codec.decode(encoded)))
    assert errors[8] < 1.04 * min(errors)


@pytest.mark.parametrize("codec", [Hyper(), Hyper(bits=2), Hyper(bits=2, dimension=4, classes=1)], ids=str)
def test_importances_lower_the_error_that_they_weigh(codec: Hyper) -> None:
    weight, h_I = gaussian(64, 128), importances(128)
    plain, weighed = (codec.decode(codec.encode(weight, h)) for h in (None, h_I))
    assert relative_error(weight, weighed, h_I) < 0.92 * relative_error(weight, plain, h_I)
    assert relative_error(weight, weighed) > relative_error(weight, plain) * 0.99


def test_importances_count_by_their_ratios_and_may_be_zero() -> None:
    weight, codec = gaussian(8, 20), Hyper()
    alike = [codec.encode(weight, h).tensors["codes"] for h in (None, torch.full((20,), 1e30), torch.zeros(20))]
    assert torch.equal(alike[0], alike[1]) and torch.equal(alike[0], alike[2])
    h_I = torch.tensor([1.0, 0.0] * 10)
    found = codec.decode(codec.encode(weight, h_I))
    assert relative_error(weight, found, h_I) < relative_error(weight, codec.decode(codec.encode(weight)), h_I)
    assert relative_error(weight, found) < 0.2


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 30)),
    codec=st.sampled_from(CODECS),
    size=st.floats(1e-5, 1e4),
    seed=st.integers(0, 99),
)
def test_any_shape_and_size_comes_back_within_its_bound(
    shape: tuple[int, int], codec: Hyper, size: float, seed: int
) -> None:
    weight = gaussian(*shape, seed) * size
    encoded = codec.encode(weight)
    found = codec.decode(encoded)
    assert found.shape == shape and bool(torch.isfinite(found).all())
    error_OJ = blockwise(codec, (weight - found).square()).sum(2).sqrt()
    assert bool((error_OJ <= codec.bounds(weight, encoded) * (1 + 1e-4)).all())


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_zeros_and_constant_groups_are_exact(codec: Hyper) -> None:
    assert not codec.decode(codec.encode(torch.zeros(3, 10))).any()
    centred = replace(codec, centred=True)
    assert torch.equal(centred.decode(centred.encode(torch.full((3, 10), 0.25))), torch.full((3, 10), 0.25))
    weight = gaussian(8, 24) * 0.02
    weight[:, :12] = 0
    assert codec.centred or not codec.decode(codec.encode(weight))[:, :12].any()


def test_a_mean_is_taken_off() -> None:
    weight = gaussian(16, 64) * 0.02 + 0.3
    plain, centred = (relative_error(weight, c.decode(c.encode(weight))) for c in (Hyper(), Hyper(centred=True)))
    assert centred < 0.02 * plain


def test_equal_weights_give_equal_bytes_whatever_the_seed_and_dtype() -> None:
    weight, codec = gaussian(16, 33), Hyper()
    first = codec.encode(weight.bfloat16())
    for seed in (0, 1):
        again = Hyper().encode(weight.bfloat16().float().requires_grad_(), seed=seed)
        assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in ("codes", "scales"))
    assert torch.equal(codec.decode(first), codec.decode(again))
    as_protocol: Codec = codec
    assert as_protocol.name == first.codec == "hyper"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7e4])
def test_weights_that_no_float16_reaches_are_refused(value: float) -> None:
    weight = gaussian(4, 8)
    weight[1, 2] = value
    with pytest.raises(ValueError, match=r"finite matrix|float16"):
        Hyper().encode(weight)


@pytest.mark.parametrize(
    ("weight", "h"),
    [(torch.zeros(3), None), (torch.zeros(0, 3), None), (torch.ones(2, 3), torch.ones(2)), (torch.ones(1, 1), -1.0)],
)
def test_no_matrix_and_no_importances_are_refused(weight: torch.Tensor, h: Any) -> None:
    with pytest.raises(ValueError, match=r"finite matrix|importances"):
        Hyper().encode(weight, torch.tensor([h]) if isinstance(h, float) else h)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 9},
        {"bits": 0.5},
        {"bits": 3.3},
        {"dimension": 1},
        {"dimension": 5},
        {"classes": 3},
        {"bits": 1, "classes": 2},
        {"stretch": 1.0},
        {"stretch": math.nan},
        {"group": 0},
        {"group": 33},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        Hyper(**changes)


def test_tensors_that_do_not_fit_are_refused() -> None:
    codec = Hyper(bits=3.5, centred=True)
    encoded = codec.encode(gaussian(3, 5))
    good = dict(encoded.tensors)
    behind = good["codes"].clone()
    behind[-1] |= 128
    for other in (
        replace(encoded, codec="seedlm"),
        replace(encoded, shape=(3, 7)),
        replace(encoded, shape=(15,)),
        replace(encoded, shape=(0, 5)),
        replace(encoded, tensors={k: v for k, v in good.items() if k != "centres"}),
        replace(encoded, tensors={**good, "more": behind}),
        replace(encoded, tensors={**good, "codes": good["codes"].int()}),
        replace(encoded, tensors={**good, "codes": behind}),
        replace(encoded, tensors={**good, "scales": -good["scales"]}),
        replace(encoded, tensors={**good, "centres": good["centres"] * math.inf}),
        replace(encoded, tensors={**good, "scales": good["scales"].float()}),
    ):
        with pytest.raises(ValueError, match=r"no matrix|another size|behind the end|not finite"):
            codec.decode(other)
    for settings_ in (Hyper(bits=3.5), Hyper(bits=4, centred=True), Hyper(bits=3.5, centred=True, group=2)):
        with pytest.raises(ValueError, match="another size"):
            settings_.decode(encoded)
