"""The queueing model: exact where steps are what it says, near a queue played through, right on other machines."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pipelines.table import PIPELINES
from harness.whatif.grid import held_out, settings_of
from harness.whatif.loads import Machine, Resource, Setting, Shape, terms
from harness.whatif.projection import PROCESSORS, STEP, WORKERS, Observed, bounds_s, fit, project
from models.transformer import ModelConfig

MACHINE = Machine(2, 100e9, 20e9, 1e8, apart=False)
SIZES = ModelConfig(width=128, depth=4, heads=4, feed_forward=512)
LEVELS = {"workers": (1, 2, 4), "batch_size": (8, 16, 32), "image_side": (128, 192, 256)}
OVERHEAD, OCCUPIED = 1.2, 1.3


def shape(pipeline: str = "thesis") -> Shape:
    return Shape("mlsa", SIZES, PIPELINES[pipeline], 260_000, 620_000, 810_000.0, 2_430_000.0)


def steps(chosen: Shape, seed: int) -> list[Observed]:
    """Make up what every term costs, and take steps that cost just that."""
    draw = random.Random(seed)
    typical = {"loader": 2e-2, "host": 2e-2, "device": 2e-2}
    scale = {(t.stage, t.per): t.amount for t in terms(chosen, Setting(2, 16, 192), MACHINE.rates)}
    prices: dict[tuple[str, str], float] = {}
    made = []
    for setting in settings_of(LEVELS):
        parts: dict[str, float] = {}
        alone: dict[str, float] = {}
        for term in terms(chosen, setting, MACHINE.rates):
            key = term.stage, term.per
            if key not in prices:
                prices[key] = typical[term.resource] * draw.uniform(0.2, 2) / scale[key]
            if key == ("decode", "stored value"):
                prices[key] = 1 / MACHINE.decoded_per_s
            into = parts if term.resource == "loader" else alone
            into[term.stage] = into.get(term.stage, 0.0) + prices[key] * term.amount
        loader_s, alone_s = OVERHEAD * sum(parts.values()), sum(alone.values())
        step_s = max(alone_s, loader_s / min(setting.workers, 2), (loader_s + OCCUPIED * alone_s) / 2)
        made.append(Observed(setting, step_s if parts else alone_s, alone, parts, 9))
    return made


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pipeline", ["thesis", "fast"])
def test_steps_that_are_what_the_model_says_are_predicted_from_half_of_them(pipeline: str, seed: int) -> None:
    chosen, observed = shape(pipeline), steps(shape(pipeline), seed)
    costs = fit(chosen, [each for each in observed if not held_out(each.setting, LEVELS)], MACHINE, 2)
    for each in observed:
        assert project(costs, chosen, each.setting).step_s == pytest.approx(each.step_s, rel=0.01)
    if pipeline == "thesis":
        assert costs.machine.decoded_per_s == pytest.approx(MACHINE.decoded_per_s)
        assert costs.overhead == pytest.approx(OVERHEAD, rel=0.02)


def played(loader_s: float, step_s: float, workers: int, processors: int, batches: int = 400) -> float:
    """Play a `DataLoader` through: batches dealt out in turn, two ahead for each worker, processors shared evenly."""
    dealt = [deque(range(worker, 2 * workers, workers)) for worker in range(workers)]
    left = [loader_s] * workers
    ready: set[int] = set()
    taken, working, now, since = 0, 0.0, 0.0, 0.0
    while taken < batches or working > 0:
        if working <= 0 and taken in ready:
            dealt[(taken + 2 * workers) % workers].append(taken + 2 * workers)
            ready.remove(taken)
            taken, working = taken + 1, step_s
            since = now if taken == batches // 2 else since
        busy = [worker for worker in range(workers) if dealt[worker]]
        rate = min(1.0, processors / max(1, len(busy) + (working > 0)))
        passed = min([left[worker] for worker in busy] + ([working] if working > 0 else [])) / rate
        now += passed
        working = max(0.0, working - passed * rate) if working > passed * rate * (1 + 1e-12) else 0.0
        for worker in busy:
            left[worker] -= passed * rate
            if left[worker] <= 1e-12:
                ready.add(dealt[worker].popleft())
                left[worker] = loader_s
    return (now - since) / (batches - batches // 2)


@given(st.floats(0.1, 10.0), st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([1, 2, 4, 16]))
def test_a_queue_that_is_played_through_takes_what_it_is_held_up_by(
    loader_s: float, workers: int, machine: int
) -> None:
    needed: dict[Resource, float] = {"loader": loader_s, "host": 0.3, "device": 0.7}
    bounds = bounds_s(needed, workers, MACHINE._replace(processors=machine), overhead=1.0, occupied=1.0)
    assert played(loader_s, 1.0, workers, machine) == pytest.approx(max(bounds.values()), rel=0.06)


def test_what_a_step_is_held_up_by_is_named_and_changes_with_the_machine() -> None:
    chosen, observed = shape(), steps(shape(), 1)
    costs = fit(chosen, observed, MACHINE, 2)
    setting = Setting(1, 16, 192)
    loading = MACHINE._replace(processors=64, decoded_per_s=MACHINE.decoded_per_s / 100)
    assert project(costs, chosen, setting, loading).held_up_by == WORKERS
    assert project(costs, chosen, setting, MACHINE._replace(decoded_per_s=1e30)).held_up_by == STEP
    assert project(costs, chosen, setting._replace(workers=64), loading._replace(processors=1)).held_up_by == PROCESSORS


def test_a_better_device_shortens_its_own_work_and_nothing_else() -> None:
    chosen = shape()
    costs = fit(chosen, steps(chosen, 2), MACHINE, 2)
    here = project(costs, chosen, Setting(4, 32, 256))
    better = MACHINE._replace(flops_per_s=4 * MACHINE.flops_per_s, bytes_per_s=4 * MACHINE.bytes_per_s)
    there = project(costs, chosen, Setting(4, 32, 256), better)
    assert there.device_s == pytest.approx(here.device_s / 4)
    assert (there.host_s, there.loader_s) == pytest.approx((here.host_s, here.loader_s))
    decoding = MACHINE._replace(decoded_per_s=2 * MACHINE.decoded_per_s)
    assert project(costs, chosen, Setting(4, 32, 256), decoding).loader_s == pytest.approx(here.loader_s / 2)


def test_a_device_that_is_apart_works_while_the_host_does_and_takes_no_processor() -> None:
    chosen = shape()
    costs = fit(chosen, steps(chosen, 3), MACHINE, 2)
    setting, plenty = Setting(64, 32, 256), MACHINE._replace(processors=64, decoded_per_s=1e30)
    together = project(costs, chosen, setting, plenty)
    apart = project(costs, chosen, setting, plenty._replace(apart=True))
    assert together.step_s == pytest.approx(together.host_s + together.device_s)
    assert apart.step_s == pytest.approx(max(apart.host_s, apart.device_s))


def test_who_loads_nothing_per_window_has_no_loader_and_goes_through_nothing_in_python() -> None:
    kinds = {(term.stage, term.per) for term in terms(shape("fast"), Setting(1, 8, 128), MACHINE.rates)}
    slow = {(term.stage, term.per) for term in terms(shape("thesis"), Setting(1, 8, 128), MACHINE.rates)}
    assert {stage for stage, _ in slow - kinds} == {"decode", "resize", "copy", "patching", "embedding"}
    assert {stage for stage, per in kinds if per == "entry"} == set()


def test_the_work_of_a_step_grows_as_it_should() -> None:
    def amounts(setting: Setting) -> dict[tuple[str, str], float]:
        return {(term.stage, term.per): term.amount for term in terms(shape(), setting, MACHINE.rates)}

    small, large, wide = (amounts(s) for s in (Setting(1, 8, 128), Setting(1, 16, 128), Setting(1, 8, 256)))
    assert large["embedding", "second of entries squared"] == 4 * small["embedding", "second of entries squared"]
    assert wide["embedding", "second of entries times positions"] == pytest.approx(
        4 * small["embedding", "second of entries times positions"]
    )
    assert large["decode", "stored value"] == 2 * small["decode", "stored value"] == 16 * 2_430_000
    assert wide["copy", "pixel"] == 4 * small["copy", "pixel"]
    assert large["attention", "step"] == small["attention", "step"] == 1
