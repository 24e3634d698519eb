"""Least squares with priors, robust errors and random effects: the solver behind `fitting.py`. numpy only.

    minimise  Σ w · loss(error) + pull · Σ ((x − centre) / spread)² + Σ (u / effect)²

`x` are the coefficients, `u` one offset of TPOT's and of TTFT's logarithm for every cell (a model on an accelerator
under an engine): a kind of system is judged by its cells, and not by how often one of them was measured (a mixed model:
Laird & Ware 1982). Predictions use `x` alone. Gauss–Newton with step halving; the loss is pseudo-Huber,
by iterated weights (Holland & Welsch 1977); the effects are eliminated block by block, so they cost next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
"""Coefficients → logarithms of TPOT and TTFT, (2, N); or their derivatives by each coefficient, (2, N, K)."""
LONGEST = 0.75
"""Of a step, in spreads of the priors."""
HALVINGS = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """What is believed before, and how errors count."""

    centre: Array
    spread: Array
    most: Array
    """Upper bounds; infinite where there is none."""
    pull: float
    """Weight of the priors, in points of 4,000."""
    curve: tuple[float, float]
    """0: errors of logarithms, 1: percentage errors, in between: in between. TPOT, TTFT."""
    smooth: tuple[float, float]
    """Errors below are squared, above absolute: TPOT, TTFT."""
    weights: tuple[float, float]
    effects: tuple[float, float]
    """Standard deviation of a cell's own offsets."""

    def errors(self, difference: Array) -> Array:
        """Shaped errors of differences of logarithms, (2, N)."""
        curve = np.array(self.curve)[:, None]
        return np.asarray(np.expm1(np.clip(curve * difference, -3, 3)) / curve)

    def loss(self, x: Array, own: Array, difference: Array) -> float:
        """The function that is minimised."""
        smooth, weights = np.array(self.smooth)[:, None], np.array(self.weights)[:, None]
        error = self.errors(difference)
        data = (weights**2 * (np.sqrt(smooth**2 + error**2) - smooth) / smooth).sum()
        prior = self._pull(difference.shape[1]) * (((x - self.centre) / self.spread) ** 2).sum() / 2
        return float(data + prior + ((own / np.array(self.effects)[:, None]) ** 2).sum() / 2)

    def _pull(self, points: int) -> float:
        return self.pull * points / 4000


def solve(
    problem: Problem,
    predict: Predict,
    derivatives: Predict,
    observed: Array,
    cells: NDArray[np.int64],
    start: Array,
    steps: int,
) -> Array:
    """The most probable coefficients. `cells`: (N,) number of each point's cell."""
    x, own = np.minimum(start, problem.most - 1e-6), np.zeros((2, int(cells.max()) + 1))
    at = predict(x)
    loss = problem.loss(x, own, at - observed + own[:, cells])
    for _ in range(steps):
        dx, du = _step(problem, derivatives(x), at - observed, cells, x, own)
        for halving in range(HALVINGS):
            share = 0.5**halving
            x_new, own_new = np.minimum(x + share * dx, problem.most - 1e-6), own + share * du
            at_new = predict(x_new)
            new = problem.loss(x_new, own_new, at_new - observed + own_new[:, cells])
            if new < loss:
                break
        else:
            return x
        done = loss - new < 1e-5 * loss
        x, own, at, loss = x_new, own_new, at_new, new
        if done:
            return x
    return x


def _step(
    problem: Problem, jacobian: Array, difference: Array, cells: NDArray[np.int64], x: Array, own: Array
) -> tuple[Array, Array]:
    """Gauss–Newton's step for coefficients and effects, no longer than `LONGEST`."""
    error = problem.errors(difference + own[:, cells])
    slope = 1 + np.array(problem.curve)[:, None] * error
    smooth, weights = np.array(problem.smooth)[:, None], np.array(problem.weights)[:, None]
    weight = weights**2 / (smooth * np.sqrt(smooth**2 + error**2))
    curvature, gradient = weight * slope**2, weight * slope * error
    points, pull = difference.shape[1], problem._pull(difference.shape[1])
    flat = jacobian.reshape(2 * points, -1)
    hessian = (flat * curvature.ravel()[:, None]).T @ flat + np.diag(pull / problem.spread**2)
    down = gradient.ravel() @ flat + pull * (x - problem.centre) / problem.spread**2
    blocks = [_effects(jacobian[a], curvature[a], gradient[a], cells, own[a], problem.effects[a]) for a in (0, 1)]
    for diagonal, mixed, slopes in blocks:
        hessian -= mixed.T @ (mixed / diagonal[:, None])
        down = down - mixed.T @ (slopes / diagonal)
    dx = -np.linalg.solve(hessian, down)
    du = np.array([-(slopes + mixed @ dx) / diagonal for diagonal, mixed, slopes in blocks])
    share = min(1.0, LONGEST / float(np.max(np.abs(dx) / problem.spread)))
    return share * dx, share * du


def _effects(
    jacobian: Array, curvature: Array, gradient: Array, cells: NDArray[np.int64], own: Array, spread: float
) -> tuple[Array, Array, Array]:
    """Second derivatives by effects, by effects and coefficients, and the gradient: (C,), (C, K), (C,)."""
    count = len(own)
    diagonal = np.bincount(cells, curvature, count) + 1 / spread**2
    mixed = np.zeros((count, jacobian.shape[1]))
    np.add.at(mixed, cells, curvature[:, None] * jacobian)
    slopes: Array = np.bincount(cells, gradient, count) + own / spread**2
    return np.asarray(diagonal, dtype=np.float64), mixed, slopes
