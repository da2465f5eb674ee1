"""Energy per stage: an estimate, from what ran between many movements of a meter.

With y the energy of an interval and x the seconds of each cell in it, least squares finds the power w of each cell:
y = x·w. A cell's energy is its power times its exposed time in the whole phase; what then is missing to the measured
total is spread by the estimates' own covariance, so that the most doubtful moves most and the sum is exact.

The error bar is half a 95 % interval, of three parts: the spread over blocks of time left out in turn (a jackknife, as
neighbouring intervals are not independent); the blur of the moments at which the meter moved; and the meter's lag
behind the device: of those tried, how far the powers go at any lag that the residuals do not rule out.

Shapes: C cells, K those that the fit holds, L lags, B blocks of time; an A is K + 1, the cells and then the meter.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from profiles.energy.curve import Joules
from profiles.energy.stage_power import BLOCKS, CELLS, FIRST_BLOCK, STEPS, Cell, Floats, PhaseSums, StagePower
from profiles.record import UNRESOLVED, Phase, StageEnergy

CONFIDENCE = 0.95

FEWEST_BLOCKS = 12
assert FEWEST_BLOCKS <= BLOCKS // 2  # noqa: S101 - or merging blocks would lose what was enough

SINGULAR = 1e9
"""A variance inflated so many times over is that of a cell which always runs beside another."""

FAINTEST = 1e-12
"""A cell whose squared seconds are less than this share of the largest's, at any lag, is as good as never met."""

BELOW_0 = "; less than 0, as the estimates of the other stages sum to more than the phase"

BLURRED = 0.1
"""Where more than this of what tells a cell from others can be blur of the meter's moments, it is not told."""


class _Power(NamedTuple):
    """Watts of each cell, their covariance, why a cell's are not known (empty: they are), and the meter's lag."""

    watts_c: Floats
    covariance_cc: Floats
    why: list[str]
    lag: int


class _Part(NamedTuple):
    """Joules, and half the width of their interval."""

    energy_j: float
    error_j: float


def stage_energies(
    power: StagePower,
    phase: Phase,
    device: str,
    exposed_s: Mapping[Cell, float],
    total: Joules,
    idle_w: float | None,
    why_not: str = "",
) -> tuple[StageEnergy, ...]:
    """Estimate what each cell of *phase* cost; the rows that have an energy sum to the total.

    Args:
        power: what was seen.
        phase: which phase.
        device: what the rows are called.
        exposed_s: each cell's time in the phase, over the epochs that *total* is of.
        total: what the phase cost in those epochs.
        idle_w: the power of the idle device, where known.
        why_not: why this meter cannot tell stages apart, where it cannot.

    """
    cells = [cell for cell, seconds in exposed_s.items() if seconds > 0]
    times_c = np.array([exposed_s[cell] for cell in cells])
    table = _Table(phase, device, cells, times_c, idle_w)
    if total.energy_j is None or total.error_j is None:
        return table.rows([None] * len(cells), [total.reason] * len(cells), "")
    sums = power.sums(phase)
    if why_not or sums is None or len(sums.blocks()) < FEWEST_BLOCKS:
        seen, needed = sums.intervals if sums else 0, FEWEST_BLOCKS * FIRST_BLOCK
        why_not = why_not or f"{seen} whole intervals of the meter lie within the phase; {needed} are needed"
        why = [why_not] * len(cells)
        return (*table.rows([None] * len(cells), why, ""), table.rest(_Part(total.energy_j, total.error_j), why, ""))
    fit = _fit(sums, [power.column(phase, cell) for cell in cells], total.energy_j / float(times_c.sum()))
    energies_c, covariance_cc = _close(fit, times_c, total.energy_j, total.error_j)
    wide = float(stdtrit(len(sums.blocks()) - 1, (1 + CONFIDENCE) / 2))
    parts = [_Part(float(e), wide * math.sqrt(v)) for e, v in zip(energies_c, np.diag(covariance_cc), strict=True)]
    why = [reason or _too_wide(part) for reason, part in zip(fit.why, parts, strict=True)]
    method = (
        f"least squares over {sums.intervals} intervals, meter lag {fit.lag - 1}/{STEPS} of its period, {total.method}"
    )
    rows = table.rows([None if reason else part for reason, part in zip(why, parts, strict=True)], why, method)
    if not any(why):
        return rows
    lost_c = np.array([bool(reason) for reason in why])
    lost_j = total.energy_j - math.fsum(part.energy_j for part, reason in zip(parts, why, strict=True) if not reason)
    error_j = wide * math.sqrt(max(float(covariance_cc[np.ix_(lost_c, lost_c)].sum()), 0.0))
    return (*rows, table.rest(_Part(lost_j, error_j), why, method + (BELOW_0 if lost_j < 0 else "")))


def _solve(products_aa: Floats) -> Floats:
    """Return the watts of each cell by least squares."""
    return np.asarray(np.linalg.lstsq(products_aa[:-1, :-1], products_aa[:-1, -1], rcond=None)[0], np.float64)


def _lags(blocks_blaa: Floats) -> tuple[int, Floats, list[int]]:
    """Return the lag at which the cells explain the meter best, the watts at every lag, and the lags not ruled out.

    A lag is ruled out when the residuals of the blocks are clearly larger, by twice the standard error of their mean
    difference, than those one step beside the best lag: the true one lies between steps. Work that repeats as fast as
    a lag is long cannot rule it out.
    """
    total_laa = blocks_blaa.sum(axis=0)
    watts_lk = np.array([_solve(total_aa) for total_aa in total_laa])
    apart_la = np.concatenate((watts_lk, np.full((len(watts_lk), 1), -1.0)), axis=1)
    residuals_bl = np.einsum("la,blac,lc->bl", apart_la, blocks_blaa, apart_la)
    summed_l = residuals_bl.sum(axis=0)
    best = int(np.argmin(summed_l))
    beside = [lag for lag in (best - 1, best + 1) if 0 <= lag < len(summed_l)]
    nearly = min(beside, key=lambda lag: float(summed_l[lag]))
    more_bl = residuals_bl - residuals_bl[:, nearly : nearly + 1]
    clear_l = more_bl.mean(axis=0) > 2 * more_bl.std(axis=0, ddof=1) / math.sqrt(len(more_bl))
    return best, watts_lk, sorted({*np.flatnonzero(~clear_l).tolist(), *beside})


def _fit(sums: PhaseSums, columns: list[int | None], mean_w: float) -> _Power:
    """Find the watts of the cells in *columns*; of one that cannot be told, take the mean, give or take as much."""
    all_blaa = sums.blocks()
    squares_blc = np.diagonal(all_blaa, axis1=2, axis2=3)[..., :CELLS]
    ran_bc, met = np.asarray((squares_blc > 0).all(axis=1)), _met(squares_blc.sum(axis=0))
    kept = [*met, CELLS]
    blocks_blaa = all_blaa[:, :, kept][:, :, :, kept]
    lag, watts_lk, possible = _lags(blocks_blaa)
    watts_k, total_aa = watts_lk[lag], blocks_blaa[:, lag].sum(axis=0)
    drift_k = np.abs(watts_lk[possible] - watts_k).max(axis=0)
    inverse_kk = np.linalg.pinv(total_aa[:-1, :-1], hermitian=True)
    blur_k = inverse_kk @ (sums.blur_c[met] * watts_k)
    blurred_k = np.diag((inverse_kk * sums.blur_c[met]) @ inverse_kk) / np.diag(inverse_kk)
    covariance_kk = _jackknife(blocks_blaa[:, lag], total_aa) + np.diag(blur_k**2 + drift_k**2)
    inflation_k = _inflation(total_aa[:-1, :-1])

    why = []
    for column in columns:
        if column not in met or ran_bc[:, column].sum() < FEWEST_BLOCKS:
            why.append("it ran in too few intervals of the meter")
        elif inflation_k[met.index(column)] > SINGULAR:
            why.append("it always ran beside another stage")
        elif blurred_k[met.index(column)] > BLURRED:
            why.append("it comes and goes faster than the meter's movements are known")
        else:
            why.append("")
    watts_c, covariance_cc = np.full(len(columns), mean_w), np.eye(len(columns)) * mean_w**2
    known = [(cell, met.index(column)) for cell, column in enumerate(columns) if column is not None and not why[cell]]
    if known:
        into, out_of = (list(places) for places in zip(*known, strict=True))
        watts_c[into] = watts_k[out_of]
        covariance_cc[np.ix_(into, into)] = covariance_kk[np.ix_(out_of, out_of)]
    return _Power(watts_c, covariance_cc, why, lag)


def _met(squares_lc: Floats) -> list[int]:
    """Return the cells that ran at every lag: one at the very edge of what was seen has nothing to fit at some."""
    faintest_l1 = FAINTEST * squares_lc.max(axis=1, keepdims=True)
    return [int(column) for column in np.flatnonzero((squares_lc > faintest_l1).all(axis=0))]


def _jackknife(blocks_baa: Floats, total_aa: Floats) -> Floats:
    """Return the watts' covariance, from leaving each block out in turn."""
    left_bk = np.array([_solve(total_aa - block_aa) for block_aa in blocks_baa])
    apart_bk = left_bk - left_bk.mean(axis=0)
    covariance_kk: Floats = (len(left_bk) - 1) / len(left_bk) * apart_bk.T @ apart_bk
    return covariance_kk


def _inflation(squares_kk: Floats) -> Floats:
    """Return by how much the company of the others inflates each cell's variance."""
    scale_k = 1 / np.sqrt(np.diag(squares_kk))
    values_k, vectors_kk = np.linalg.eigh(squares_kk * scale_k[:, None] * scale_k)
    inflation_k: Floats = (vectors_kk**2 / np.maximum(values_k, 1e-16)).sum(axis=1)
    return inflation_k


def _close(power: _Power, times_c: Floats, total_j: float, error_j: float) -> tuple[Floats, Floats]:
    """Return energies that sum to the total, and their covariance: least squares under that condition."""
    energies_c = power.watts_c * times_c
    covariance_cc = power.covariance_cc * times_c[:, None] * times_c
    with_sum_c = covariance_cc.sum(axis=1)
    spread = float(with_sum_c.sum())
    share_c = with_sum_c / spread if spread > 0 else energies_c / energies_c.sum()
    energies_c = energies_c + share_c * (total_j - energies_c.sum())
    covariance_cc = covariance_cc - np.outer(with_sum_c, share_c) + (error_j / 2) ** 2 * np.outer(share_c, share_c)
    np.fill_diagonal(covariance_cc, np.maximum(np.diag(covariance_cc), 0))
    return energies_c, covariance_cc


def _too_wide(part: _Part) -> str:
    if part.error_j < part.energy_j:
        return ""
    return f"its error bar of {part.error_j:.3g} J is not smaller than the estimate of {part.energy_j:.3g} J"


class _Table(NamedTuple):
    """The rows of one phase on one device."""

    phase: Phase
    device: str
    cells: list[Cell]
    times_c: Floats
    idle_w: float | None

    def rows(self, parts: list[_Part | None], why: list[str], method: str) -> tuple[StageEnergy, ...]:
        """Return a row for each cell."""
        whole = zip(self.cells, self.times_c.tolist(), parts, why, strict=True)
        return tuple(self._row(cell, time_s, part, reason, method) for cell, time_s, part, reason in whole)

    def rest(self, part: _Part, why: list[str], method: str) -> StageEnergy:
        """Return the row of all stages that have none of their own."""
        time_s = math.fsum(time for time, reason in zip(self.times_c.tolist(), why, strict=True) if reason)
        return self._row((UNRESOLVED, "none"), time_s, part, "", method)

    def _row(self, cell: Cell, time_s: float, part: _Part | None, reason: str, method: str) -> StageEnergy:
        idle_j = None if self.idle_w is None else self.idle_w * time_s
        return StageEnergy(
            phase=self.phase,
            device=self.device,
            stage=cell[0],
            direction=cell[1],
            exposed_s=time_s,
            energy_j=part.energy_j if part else None,
            error_j=part.error_j if part else None,
            above_idle_j=part.energy_j - idle_j if part and idle_j is not None else None,
            tag="estimated" if part else "unavailable",
            method=method,
            reason=reason or None,
        )
