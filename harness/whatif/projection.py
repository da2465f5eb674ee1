"""A small queueing model of a training step: what loads, what the host does, what the device does, and who waits.

In the long run a step takes as long as whichever of these needs most of it (operational bounds, Denning & Buzen 1978):

    the step itself     host and device one after the other; the longer of the two where the device is apart
    the workers         what loading a batch works, by as many as there are workers
    the processors      what loading and the step work together, by all of them; less the device's where it is apart

In the long run the queue of batches is either empty, and the step waits, or full, and the workers do. What each needs
is a sum over the terms of `harness.whatif.loads`; costs are fitted stage by stage to steps by the stage clock, by least
squares without negative costs. Two numbers remain, fitted to whole steps: how much more than metered a batch costs the
workers, and how many processors a step occupies.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brute, nnls

from harness.whatif.loads import Machine, Resource, Setting, Shape, Term, terms

STEP, WORKERS, PROCESSORS = "the step itself", "the workers", "the processors"
Array = NDArray[np.float64]

OVERHEADS = slice(0.8, 2.01, 0.02)
"""Where what the workers work by what they meter is looked for."""


class Observed(NamedTuple):
    """A step at a setting: seconds of the whole, by stage with loading taken away, and of loading's parts."""

    setting: Setting
    step_s: float
    stages_s: Mapping[str, float]
    loader_s: Mapping[str, float]
    rounds: int

    @property
    def alone_s(self) -> float:
        """The step with loading taken away."""
        return sum(self.stages_s.values())


class Costs(NamedTuple):
    """What was fitted: seconds for each unit of a term, by stage and unit, and the two numbers for whole steps."""

    per_unit_s: Mapping[tuple[str, str], float]
    overhead: float
    occupied: float
    machine: Machine


class Projected(NamedTuple):
    """A step as the model has it, seconds: of each resource, of the whole, and what it is held up by."""

    step_s: float
    held_up_by: str
    loader_s: float
    host_s: float
    device_s: float


def fit(shape: Shape, observed: Sequence[Observed], machine: Machine, threads: int) -> Costs:
    """Fit costs to what was observed on *machine*, whose rate of decoding follows from it.

    A step occupies as many processors as it has *threads*, at most.
    """
    decoded_per_s = _decoded_per_s(shape, observed, machine.decoded_per_s)
    machine = machine._replace(decoded_per_s=decoded_per_s)
    work = [terms(shape, each.setting, machine.rates) for each in observed]
    per_unit_s: dict[tuple[str, str], float] = {}
    for stage in dict.fromkeys(term.stage for term in work[0]):
        per_unit_s |= _stage_costs(stage, work, observed)
    costs = Costs(per_unit_s, 1.0, 1.0, machine)
    if not any(each.loader_s for each in observed):
        return costs
    needed = [_needed(costs, shape, each.setting, machine) for each in observed]
    overhead, occupied = _whole_steps(needed, observed, machine, threads)
    return costs._replace(overhead=overhead, occupied=occupied)


def _decoded_per_s(shape: Shape, observed: Sequence[Observed], otherwise: float) -> float:
    rates = [
        each.setting.batch_size * shape.stored_values / each.loader_s["decode"]
        for each in observed
        if each.loader_s.get("decode")
    ]
    return median(rates) if rates else otherwise


def _stage_costs(
    stage: str, work: Sequence[Sequence[Term]], observed: Sequence[Observed]
) -> dict[tuple[str, str], float]:
    """Fit one stage's costs; an error counts as a part of its step."""
    units = list(dict.fromkeys(term.per for term in work[0] if term.stage == stage))
    amounts = np.array([[_amount(each, stage, unit) for unit in units] for each in work])
    loads = any(term.resource == "loader" for term in work[0] if term.stage == stage)
    seconds = np.array([(each.loader_s if loads else each.stages_s).get(stage, 0.0) for each in observed])
    weights = 1 / np.array([each.alone_s + sum(each.loader_s.values()) for each in observed])
    scales = amounts.max(axis=0)
    found, _ = nnls(amounts / scales * weights[:, None], seconds * weights)
    return {(stage, unit): float(cost) for unit, cost in zip(units, found / scales, strict=True)}


def _amount(work: Sequence[Term], stage: str, unit: str) -> float:
    return sum(term.amount for term in work if (term.stage, term.per) == (stage, unit))


def _needed(costs: Costs, shape: Shape, setting: Setting, machine: Machine) -> dict[Resource, float]:
    """Return what a step needs of each resource, seconds; loading as metered, at the machine's rate of decoding."""
    needed: dict[Resource, float] = {"loader": 0.0, "host": 0.0, "device": 0.0}
    for term in terms(shape, setting, machine.rates):
        needed[term.resource] += term.amount * costs.per_unit_s[term.stage, term.per]
    needed["loader"] *= costs.machine.decoded_per_s / machine.decoded_per_s
    return needed


def _whole_steps(
    needed: Sequence[Mapping[Resource, float]], observed: Sequence[Observed], machine: Machine, threads: int
) -> tuple[float, float]:
    """Find the two numbers by which whole steps come out best: the least mean error, either way alike."""
    measured = np.array([each.step_s for each in observed])

    def error(found: Array) -> float:
        overhead, occupied = found
        steps = [
            max(bounds_s(each, seen.setting.workers, machine, overhead, occupied).values())
            for each, seen in zip(needed, observed, strict=True)
        ]
        return float(np.abs(np.log(np.array(steps) / measured)).mean())

    most = min(threads, machine.processors)
    overhead, occupied = brute(error, (OVERHEADS, slice(0.0, most + 0.01, 0.05)))
    return float(overhead), min(max(float(occupied), 0.0), most)  # the last refinement knows no bounds


def bounds_s(
    needed: Mapping[Resource, float], workers: int, machine: Machine, overhead: float, occupied: float
) -> dict[str, float]:
    """Return what a step takes at least, by what it is held up by."""
    loader_s, host_s, device_s = overhead * needed["loader"], needed["host"], needed["device"]
    step_s = max(host_s, device_s) if machine.apart else host_s + device_s
    worked_s = host_s if machine.apart else occupied * step_s
    return {
        STEP: step_s,
        WORKERS: loader_s / workers,
        PROCESSORS: (loader_s + worked_s) / machine.processors,
    }


def project(costs: Costs, shape: Shape, setting: Setting, machine: Machine | None = None) -> Projected:
    """Predict a step at a setting, on the machine that was measured or on another."""
    where = machine or costs.machine
    needed = _needed(costs, shape, setting, where)
    bounds = bounds_s(needed, setting.workers, where, costs.overhead, costs.occupied)
    held_up_by = max(bounds, key=lambda name: bounds[name])
    loader_s = costs.overhead * needed["loader"]
    return Projected(bounds[held_up_by], held_up_by, loader_s, needed["host"], needed["device"])
