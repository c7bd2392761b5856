"""Step control: the Levenberg-Marquardt fit that finds an adapter's log scales, from far away and near.

minimise  F(x) = pull/2 x'Hx + wanted loss(x) + kept_weight * kept loss(x)   over the displacement x,
where H = diag(d) + G'G measures how far retained answers move to first order (G: cached retention
rows). A step solves (rho H + R'R) d = -grad F with R the shortfalls' rows; rho follows the ratio of
the reduction found to the one predicted (Nielsen 1999, "Damping parameter in Marquardt's method"; but
it halves at most, since early rows are far from linear), and a step that didn't reduce F is taken back
before its derivatives cost anything. The gradient is exact, the curvature lacks the shared prefix's
part.

From far away (`approach`) a step looks at one batch of wanted answers and one of kept ones, each in its turn.
What was seen in the others goes on from where they were looked at last, to first order, as in incremental
Gauss-Newton methods (Gurbuzbalaban, Ozdaglar & Parrilo 2015, "A globally convergent incremental Newton
method"). Knows linear algebra; doesn't know text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from policies.editing.adapters import STAGE, AdapterStack
from policies.editing.objectives import Answers, Look
from store.errors import PalimpsestError

INACTIVE = 0.05  # nats; a smaller shortfall is no reason to bend a step
SETTLED = 0.04  # a step that reduces F by a smaller share is the last one,
HELD_BACK = 0.9  # unless it reduced F just as predicted: then only its damping made it short
ASTRAY = 2.0  # times the loss that a batch had when it was last looked at: far steps have gone wrong
REFUSED = 2  # steps that may be taken back for one of the `pulls`
NEAR = 0.25  # of `rho`: where the damping of far steps ends and that of steps with all answers starts


class NoProgressError(PalimpsestError):
    """Not a single step helped, or numbers weren't finite to begin with."""


class Metric:
    """H = diag(d) + G'G for rows G (R, P), applied inversely through Woodbury's identity.

    `d` = eps + shrink * sum of squares of each column: shrinking the sampled G'G toward its
    diagonal, since a few hundred rows know only a few hundred directions (Ledoit & Wolf 2004).
    `frozen` coordinates can't move: the metric is that of the others, and zero for these.
    """

    def __init__(
        self, rows: torch.Tensor, *, eps: float, shrink: float, frozen: torch.Tensor | None = None
    ) -> None:
        self.size = rows.shape[1]
        self.free = torch.arange(self.size) if frozen is None else (~frozen).nonzero()[:, 0]
        self.rows = rows if frozen is None else rows[:, self.free]
        self.diagonal = eps + shrink * self.rows.square().sum(0)
        kernel = gram(self.rows / self.diagonal.sqrt())
        kernel.diagonal().add_(1.0)
        self.factor = torch.linalg.cholesky(kernel.double())

    def apply(self, vector: torch.Tensor) -> torch.Tensor:
        """H v (P,)."""
        v, out = vector[self.free], torch.zeros(self.size)
        out[self.free] = v * self.diagonal + (self.rows @ v) @ self.rows
        return out

    def solve(self, vectors: torch.Tensor) -> torch.Tensor:
        """H^-1 v for each row v of `vectors` (n, P)."""
        scaled, out = vectors[:, self.free] / self.diagonal, torch.zeros_like(vectors)
        inner = torch.cholesky_solve((scaled @ self.rows.T).T.double(), self.factor).T.float()
        out[:, self.free] = scaled - (inner @ self.rows) / self.diagonal
        return out


def gram(rows: torch.Tensor, blocks: int = 8) -> torch.Tensor:
    """rows @ rows.T (R, R), half of it computed and half mirrored."""
    out, step = rows.new_empty(len(rows), len(rows)), max(1, -(-len(rows) // blocks))
    for i in range(0, len(rows), step):
        block = rows[i:] @ rows[i : i + step].T
        out[i:, i : i + step], out[i : i + step, i:] = block, block.T
    return out


@dataclass(frozen=True, slots=True)
class FitOptions:
    """`nats`: shortfall beyond which a wanted answer pulls no harder; `cap`: largest move of one log
    scale in a step; `pulls`: weight of x'Hx, the next one while more than `gap` is left; `kept_weight`:
    weight of the kept loss against the wanted one; `rho`: damping of the first far step. Done is when the
    largest wanted shortfall of decisive tokens is at most `gap` and the mean kept one at most `damage`."""

    nats: float = 10.0
    cap: float = 1.0
    pulls: tuple[float, ...] = (0.3,)
    kept_weight: float = 1.0
    rho: float = 8.0
    gap: float = 0.9
    damage: float = 0.25

    def met(self, gap: float, damage: float) -> bool:
        return gap <= self.gap and damage <= self.damage


@dataclass(frozen=True, slots=True)
class Fit:
    """The displacement found (P,), the last largest gap and mean damage (nats)."""

    x: torch.Tensor
    gap: float
    damage: float


@dataclass(frozen=True, slots=True)
class _Point:
    """x with Hx, the losses there and all that their derivatives need."""

    x: torch.Tensor
    hx: torch.Tensor
    loss: float
    wanted: Look
    kept: Look

    def value(self, pull: float) -> float:
        return pull / 2 * float(self.x @ self.hx) + self.loss

    @property
    def gap(self) -> float:
        return self.wanted.gap

    @property
    def damage(self) -> float:
        return float(self.kept.shortfall.mean()) if len(self.kept.shortfall) else 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """F and its derivatives; the stage adapter holds x - `offset`."""

    stack: AdapterStack
    metric: Metric
    wanted: Answers
    kept: Answers
    options: FitOptions
    offset: torch.Tensor

    def look(self, x: torch.Tensor) -> _Point:
        self.stack.set(STAGE, x - self.offset)
        wanted, kept = self.wanted.look(self.stack), self.kept.look(self.stack)
        loss = wanted.loss(self.options.nats) + self.options.kept_weight * kept.loss(float("inf"))
        return _Point(x, self.metric.apply(x), loss, wanted, kept)

    def linearise(self, point: _Point) -> tuple[torch.Tensor, torch.Tensor]:
        """(gradient of the losses (P,), rows (n, P) of the answers that are short). Once for a point."""
        want, want_rows = derivatives(point.wanted, self.options.nats, 1.0)
        keep, keep_rows = derivatives(point.kept, float("inf"), self.options.kept_weight)
        return want + keep, torch.cat([want_rows, keep_rows])

    def gap(self, x: torch.Tensor) -> float:
        """The largest gap at `x`, where the stage adapter is left."""
        self.stack.set(STAGE, x - self.offset)
        return self.wanted.look(self.stack).gap


def derivatives(look: Look, cap: float, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient (P,) of a look's loss by its `weight` in F, rows (k, P) of the answers that are short). Once
    for a look."""
    rows, gradient = look.linearise(cap)
    return weight * gradient, weight**0.5 * rows[look.shortfall > INACTIVE]


@dataclass(frozen=True, slots=True)
class Seen:
    """One batch as it was looked at: where, its shortfalls (n,), their rows (n, P), each by the root of its
    weight in the loss, and the rest of the gradient (P,), which has no rows: the shared prefix's."""

    x: torch.Tensor
    short: torch.Tensor
    rows: torch.Tensor
    rest: torch.Tensor
    loss: float
    gap: float
    damage: float

    def at(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(gradient (P,), rows that are short (k, P)) to be expected at `x`: what has been made good doesn't
        pull any more."""
        short = (self.short + self.rows @ (x - self.x)).clamp(min=0)
        left = float(short.norm() / self.short.norm().clamp(min=INACTIVE))
        return min(1.0, left) * self.rest + short @ self.rows, self.rows[short > INACTIVE]


def see(problem: Problem, answers: Answers, x: torch.Tensor, cap: float, weight: float) -> Seen:
    """A look at `answers`, one batch, and its derivatives at `x`, by its `weight` in the loss."""
    problem.stack.set(STAGE, x - problem.offset)
    look = answers.look(problem.stack)
    gradient, rows = derivatives(look, cap, weight)
    short = ((weight * look.weights(cap)).sqrt() * look.shortfall)[look.shortfall > INACTIVE]
    mean = float(look.shortfall.sum()) / len(answers.batches[0].index)
    return Seen(x, short, rows, gradient - short @ rows, look.loss(cap), look.gap, mean)


def approach(
    problem: Problem,
    start: torch.Tensor,
    steps: int,
    on_step: Callable[[int, float, float], None] = lambda step, gap, damage: None,
) -> torch.Tensor:
    """The displacement x (P,) after at most `steps` far steps by the first of the `pulls`: fewer when
    `options` are met as far as the last looks know. Steps after which a batch of wanted answers is worse than
    when it was last looked at are followed by more damping, and taken back when it is much worse. `fit` says
    what came of all.

    Raises NoProgressError when a step's numbers aren't finite.
    """
    o, x, rho = problem.options, start, problem.options.rho
    wanted, kept = problem.wanted.parts(), problem.kept.parts()
    want: dict[int, Seen] = {}
    keep: dict[int, Seen] = {}
    for step in range(steps):
        i, k = step % len(wanted), step % max(1, len(kept))
        before, now = want.get(i), see(problem, wanted[i], x, o.nats, 1.0)
        if before is not None and now.loss > before.loss:
            rho *= 4
        elif step:
            rho = max(NEAR * o.rho, rho / 2)
        if before is not None and now.loss > ASTRAY * before.loss + o.gap:
            x, now = before.x, before
        want[i] = now
        if kept:
            keep[k] = see(problem, kept[k], x, float("inf"), o.kept_weight)
        gap = max(s.gap for s in want.values())
        damage = sum(s.damage for s in keep.values()) / max(1, len(keep))
        on_step(step + 1, gap, damage)
        if len(want) == len(wanted) and len(keep) == len(kept) and o.met(gap, damage):
            break
        gradients, rows = zip(*(s.at(x) for s in (*want.values(), *keep.values())), strict=True)
        gradient = o.pulls[0] * problem.metric.apply(x) + sum(gradients)
        x = x + _step(problem.metric, gradient, torch.cat(rows), rho, o.cap)
        if not bool(torch.isfinite(x).all()):
            raise NoProgressError("fit adapter", f"far step {step + 1}", "its numbers aren't finite")
    problem.stack.set(STAGE, x - problem.offset)
    return x


def fit(
    problem: Problem,
    start: torch.Tensor,
    steps: int,
    on_step: Callable[[int, float, float], None] = lambda step, gap, damage: None,
) -> Fit:
    """The displacement x (P,) from where the metric is centred, after at most `steps` steps for each of the
    `pulls`, not counting those taken back: fewer when `options` are met or F has settled.

    A step whose numbers aren't finite is taken back like any that doesn't help. Raises NoProgressError
    when they aren't at the start.
    """
    o = problem.options
    best = problem.look(start)
    if not best.loss < float("inf"):
        raise NoProgressError("fit adapter", "at its start", "the loss isn't a finite number")
    slope = None  # derivatives at `best`, once they are needed
    for pull in o.pulls:
        rho, backoff = NEAR * o.rho, 2.0
        taken = refused = 0
        while taken < steps and refused <= REFUSED:
            on_step(taken + 1, best.gap, best.damage)
            if o.met(best.gap, best.damage):
                break
            slope = slope or problem.linearise(best)
            gradient, rows = slope[0] + pull * best.hx, slope[1]
            move = _step(problem.metric, gradient, rows, rho, o.cap)
            curved = float((rows @ move).square().sum()) + pull * float(move @ problem.metric.apply(move))
            predicted = -float(gradient @ move) - curved / 2
            tried = problem.look(best.x + move)
            won = best.value(pull) - tried.value(pull)
            if not won > 0:
                rho, backoff, refused = rho * 2 * backoff, backoff * 2, refused + 1
                continue
            taken += 1
            ratio = won / max(predicted, 1e-9)
            rho, backoff = rho * max(0.5, 1 - (2 * ratio - 1) ** 3), 2.0
            settled = ratio < HELD_BACK and won < SETTLED * best.value(pull)
            best, slope = tried, None
            if settled:
                break
        if best.gap <= o.gap:
            break
    problem.stack.set(STAGE, best.x - problem.offset)
    return Fit(best.x, best.gap, best.damage)


def _step(metric: Metric, gradient: torch.Tensor, rows: torch.Tensor, rho: float, cap: float) -> torch.Tensor:
    """-(rho H + R'R)^-1 grad F by Woodbury's identity, clipped coordinate by coordinate."""
    solved = metric.solve(torch.cat([gradient[None], rows]))
    free, spanned = solved[0], solved[1:]
    kernel = rows @ spanned.T
    kernel.diagonal().add_(rho)
    move = -(free - spanned.T @ torch.linalg.solve(kernel, rows @ free)) / rho
    clipped: torch.Tensor = move.clamp(-cap, cap)
    return clipped
