"""Step control: the Levenberg-Marquardt fit that finds an adapter's log scales.

minimise  F(x) = pull/2 x'Hx + wanted loss(x) + kept_weight * kept loss(x)   over the displacement x,
where H = diag(d) + G'G measures how far retained answers move to first order (G: cached retention
rows). A step solves (rho H + R'WR) d = -grad F with R the residuals' rows; rho falls after a step that
helped and rises after one that did not, which is then taken back. The gradient is exact, the
curvature lacks the shared prefix's part. Knows linear algebra; doesn't know text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from policies.editing.adapters import STAGE, AdapterStack
from policies.editing.objectives import Kept, Wanted
from store.errors import PalimpsestError


class NoProgressError(PalimpsestError):
    """The fit ended without reaching its goal, or met numbers that aren't finite."""


class Metric:
    """H = diag(d) + G'G for rows G (R, P), applied inversely through Woodbury's identity.

    `d` = eps + shrink * sum of squares of each column: shrinking the sampled G'G toward its
    diagonal, since a few hundred rows know only a few hundred directions (Ledoit & Wolf 2004).
    `frozen` coordinates can't move.
    """

    def __init__(
        self, rows: torch.Tensor, *, eps: float, shrink: float, frozen: torch.Tensor | None = None
    ) -> None:
        self.rows = rows
        self.diagonal = eps + shrink * rows.square().sum(0)
        if frozen is not None:
            self.diagonal = self.diagonal.masked_fill(frozen, 1e9)
        kernel = (rows / self.diagonal) @ rows.T
        kernel.diagonal().add_(1.0)
        self.factor = torch.linalg.cholesky(kernel.double())

    def solve(self, vectors: torch.Tensor) -> torch.Tensor:
        """H^-1 v for each row v of `vectors` (n, P)."""
        scaled = vectors / self.diagonal
        inner = torch.cholesky_solve((scaled @ self.rows.T).T.double(), self.factor).T.float()
        return scaled - (inner @ self.rows) / self.diagonal

    def norm(self, vector: torch.Tensor) -> float:
        squares = (vector.square() * self.diagonal).sum() + (self.rows @ vector).square().sum()
        return float(squares.sqrt())


@dataclass(frozen=True, slots=True)
class FitOptions:
    """`cap`: largest move of one log scale in a step; `pull`: weight of x'Hx; `kept_weight`: weight of
    the kept loss against the wanted one; `rho`: damping to start from; the fit is done when the
    largest gap is below `gap` and the damage below `damage` nats."""

    steps: int = 12
    cap: float = 1.0
    pull: float = 0.02
    kept_weight: float = 1.0
    rho: float = 5.0
    gap: float = 0.3
    damage: float = 2.0


@dataclass(frozen=True, slots=True)
class Fit:
    """The displacement found (P,), the last largest gap and summed damage (nats), and passes made."""

    x: torch.Tensor
    gap: float
    damage: float
    steps: int


@dataclass(frozen=True, slots=True)
class _Point:
    x: torch.Tensor
    value: float
    gap: float
    damage: float
    gradient: torch.Tensor
    rows: torch.Tensor  # scaled by the root of their weight


def fit(
    stack: AdapterStack,
    metric: Metric,
    wanted: Wanted,
    kept: Kept | None,
    first: int,
    options: FitOptions,
    *,
    start: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    on_step: Callable[[int, float, float], None] = lambda step, gap, damage: None,
) -> Fit:
    """Displacement x (P,) from where `metric` is centred; the stage adapter holds x - `offset`.

    Raises NoProgressError when anything stops being finite.
    """
    shift = torch.zeros(stack.size) if offset is None else offset

    def look(x: torch.Tensor) -> _Point:
        stack.set(STAGE, x - shift)
        return _look(stack, metric, wanted, kept, first, options, x)

    best = look(torch.zeros(stack.size) if start is None else start)
    rho, step = options.rho, 0
    for step in range(1, options.steps + 1):
        on_step(step, best.gap, best.damage)
        if best.gap <= options.gap and best.damage <= options.damage:
            break
        tried = look(best.x + _step(metric, best, rho, options.cap))
        if not (bool(torch.isfinite(tried.x).all()) and tried.value < float("inf")):
            raise NoProgressError("fit adapter", f"step {step}", "the log scales stopped being finite")
        if tried.value < best.value:
            best, rho = tried, rho / 2
        else:
            rho *= 5
    stack.set(STAGE, best.x - shift)
    return Fit(best.x, best.gap, best.damage, step)


def _look(
    stack: AdapterStack,
    metric: Metric,
    wanted: Wanted,
    kept: Kept | None,
    first: int,
    options: FitOptions,
    x: torch.Tensor,
) -> _Point:
    hx = x * metric.diagonal + (metric.rows @ x) @ metric.rows
    want = wanted.residuals(stack, first)
    value = options.pull / 2 * float(x @ hx) + want.loss
    gradient, rows, damage = options.pull * hx + want.gradient, want.rows, 0.0
    if kept:
        keep = kept.residuals(stack, first)
        value += options.kept_weight * keep.loss
        gradient = gradient + options.kept_weight * keep.gradient
        rows = torch.cat([rows, options.kept_weight**0.5 * keep.rows[keep.values > 0.05]])
        damage = float(keep.values.sum())
    return _Point(x, value, float(want.values.max()), damage, gradient, rows)


def _step(metric: Metric, point: _Point, rho: float, cap: float) -> torch.Tensor:
    """-(rho H + R'R)^-1 grad F by Woodbury's identity, capped coordinate by coordinate."""
    solved = metric.solve(torch.cat([point.gradient[None], point.rows]))
    free, spanned = solved[0], solved[1:]
    kernel = point.rows @ spanned.T
    kernel.diagonal().add_(rho)
    move = -(free - spanned.T @ torch.linalg.solve(kernel, point.rows @ free)) / rho
    shrunk: torch.Tensor = move * min(1.0, cap / max(float(move.abs().max()), 1e-9))
    return shrunk
