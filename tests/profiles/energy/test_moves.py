import random

import numpy as np
import pytest

from profiles.energy.moves import EVERY, LOOK_NS, LOST_NS, MeterWatch, Move

MS = 1_000_000


def watch_counter(period_ns: int, end_ns: int, sample_ns: int = 100 * MS) -> tuple[MeterWatch, list[Move], int]:
    """Watch a counter that moves by 1 at every whole *period_ns*, with everything else read every *sample_ns*."""
    watch, moves, looks, now_ns = MeterWatch(), [], 0, 3 * MS
    jitter = random.Random(0)
    while now_ns < end_ns:
        move = watch.look(now_ns, now_ns // period_ns)
        looks += 1
        moves += [move] if move else []
        sample_at_ns = now_ns + sample_ns - now_ns % sample_ns
        now_ns = min(sample_at_ns, watch.next_look_ns() or sample_at_ns) + jitter.randrange(MS)
    return watch, moves, looks


@pytest.mark.parametrize("period_ms", [50, 97, 100, 250])
def test_each_movement_is_known_to_milliseconds_for_few_looks(period_ms: int) -> None:
    watch, moves, looks = watch_counter(period_ms * MS, 60_000 * MS)
    assert watch.period_ns == pytest.approx(period_ms * MS, rel=0.02)
    for move in moves[20:]:
        assert abs(move.at_ns - move.value * period_ms * MS) <= move.within_ns
    sharp = [int(move.value) for move in moves[20:] if move.sharp]
    assert set(np.diff(sharp).tolist()) <= {1, 2, EVERY}
    assert len(sharp) >= (len(moves) - 20) / EVERY - 1
    assert looks < 60_000 / period_ms + 600 + 500


def test_a_meter_that_moves_all_the_time_needs_no_looks_of_its_own() -> None:
    watch, moves, looks = watch_counter(MS, 10_000 * MS)
    assert watch.fluent
    assert looks < 100 + 50
    assert moves[-1].within_ns > 0  # what is read is a little old


def test_a_meter_that_stands_still_is_left_in_peace() -> None:
    watch, now_ns = MeterWatch(), 0
    while (look_ns := watch.look(now_ns, 7.0) or watch.next_look_ns()) is not None:
        assert isinstance(look_ns, int)
        now_ns = look_ns
    assert LOST_NS < now_ns < LOST_NS + 2 * LOOK_NS
    assert watch.look(now_ns + LOST_NS, 8.0) is not None  # and found again when it moves
    assert watch.next_look_ns() is not None


def test_after_a_silence_the_next_value_is_no_movement() -> None:
    watch = MeterWatch()
    watch.look(0, 1.0)
    watch.missed()
    assert watch.look(10 * MS, 5.0) is None
    assert watch.look(20 * MS, 6.0) == Move(15 * MS, 5 * MS, 6.0)
