"""`bench kernels`: nothing wrong is timed, arithmetic is counted right, the crossover is where it is. No durations."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench
from harness.kernels import check, command, sweep, table
from harness.kernels.check import TOLERANCE, error_of
from harness.kernels.crossover import Point, crossing, crossover
from harness.kernels.shape import Shape, arguments, built, cost_of, work_of
from harness.kernels.sweep import joules, sweep_shape
from harness.kernels.table import KERNELS
from models.attention.sizes import Sizes
from profiles.energy.readings import Reading
from profiles.errors import ConfigError
from profiles.kernels import Direction, KernelsRecord
from profiles.rate import Rates
from profiles.ratio import Ratio, Rounds
from profiles.record import read_model

CPU = torch.device("cpu")
ON_CPU = [name for name, kernel in KERNELS.items() if kernel.unavailable(CPU, torch.float32) is None]
DTYPES = (torch.float32, torch.bfloat16)
BUILT = [(name, dtype) for name in ON_CPU for dtype in DTYPES if KERNELS[name].unavailable(CPU, dtype) is None]
RATES = Rates(1e11, 1e10)


class NoMeter:
    name = "cpu"

    def read(self, now_ns: int) -> Reading:  # noqa: ARG002 - the seam has it
        return Reading(why={"energy_j": "no counter here"})

    def read_meter(self) -> Reading:
        return Reading()


class Meter(NoMeter):
    """A counter that moves by three joules between two looks."""

    def __init__(self) -> None:
        self.energy_j = 0.0

    def read_meter(self) -> Reading:
        self.energy_j += 3.0
        return Reading(energy_j=self.energy_j)


class LazyDevice(NoMeter):
    """Does what it was given while it is waited for, and not before; a quarter of a joule each."""

    def __init__(self) -> None:
        self.given, self.energy_j = 0, 0.0

    def take(self) -> None:
        self.given += 1

    def drain(self) -> None:
        self.energy_j += self.given / 4
        self.given = 0

    def read_meter(self) -> Reading:
        return Reading(energy_j=self.energy_j)


def shape(tokens: int, windows: int = 3, width: int = 16, dtype: torch.dtype = torch.float32) -> Shape:
    return Shape(windows, tokens, 2, width, dtype, CPU)


def turns(works: dict[str, object], **_: object) -> Rounds:
    """Let no time pass: every kernel's rounds take a millisecond."""
    return Rounds({name: [10**6] * 8 for name in works}, "precision")


@pytest.mark.parametrize("direction", ["forward", "forward + backward"])
@pytest.mark.parametrize(("name", "dtype"), BUILT)
def test_every_kernel_is_right(name: str, dtype: torch.dtype, direction: str) -> None:
    for tokens in (1, 8, 16, 17):
        mix, module = built(KERNELS[name], shape(tokens, dtype=dtype))
        found = error_of(KERNELS[name], mix, module, shape(tokens, dtype=dtype), direction)  # type: ignore[arg-type]
        assert found <= TOLERANCE[dtype]


@pytest.mark.parametrize("fault", [lambda mixed: mixed * 1.0001, lambda mixed: mixed * math.nan])
def test_a_wrong_result_has_no_time(
    fault: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = KERNELS["linear eager"]

    def build(sizes: Sizes) -> tuple[table.Mix, torch.nn.Module]:
        mix, module = kernel.build(sizes)
        return lambda q, k, v: fault(mix(q, k, v)), module

    monkeypatch.setitem(KERNELS, "linear eager", kernel._replace(build=build))
    rows, rounds = sweep_shape(
        ["linear eager", "softmax eager", "softmax sdpa"], shape(9), "forward", RATES, NoMeter(), 0.0, turns
    )
    assert rows[0].time_s is None
    assert rows[0].reason.startswith("wrong result")
    assert list(rounds[0].times_ns) == ["softmax eager", "softmax sdpa"]


def test_only_the_last_window_being_wrong_is_seen() -> None:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed = KERNELS["softmax eager"].build(Sizes(32, 2, 9))[0](q, k, v).clone()
        mixed[-1] *= 2
        return mixed

    assert error_of(KERNELS["softmax eager"], mix, torch.nn.Module(), shape(9), "forward") > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wrong_token_of_one_head_is_seen(dtype: torch.dtype) -> None:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed = KERNELS["softmax eager"].build(Sizes(32, 2, 400))[0](q, k, v).clone()
        mixed[1, 7, 1] *= 1.2
        return mixed

    found = error_of(KERNELS["softmax eager"], mix, torch.nn.Module(), shape(400, dtype=dtype), "forward")
    assert found > TOLERANCE[dtype]


def test_instances_are_made_anew_and_their_spread_is_the_interval() -> None:
    made: list[dict[str, object]] = []

    def slower_each_time(works: dict[str, object], **_: object) -> Rounds:
        made.append(works)
        return Rounds({"linear eager": [10**6 * (10 + len(made))] * 50, "softmax eager": [10**7] * 50}, "time")

    names = ["linear eager", "softmax eager"]
    rows, instances = sweep_shape(names, shape(9), "forward", RATES, NoMeter(), 60.0, slower_each_time)
    found = sweep.ratio(instances, "linear eager", "softmax eager")
    assert found == pytest.approx((1.35, 1.1, 1.6, 6), abs=2e-3)
    assert [row.rounds for row in rows] == [300, 300]
    assert len({id(works["linear eager"]) for works in made}) == len(made) == sweep.INSTANCES


def test_no_instance_begins_once_time_is_up() -> None:
    names = ["linear eager", "softmax eager"]
    _, instances = sweep_shape(names, shape(9), "forward", RATES, NoMeter(), 0.04, turns)  # 16 ms each
    assert len(instances) == 3
    assert sweep.ratio(instances, *names).low == 0.0


def test_a_wrong_gradient_is_seen() -> None:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return KERNELS["softmax eager"].build(Sizes(32, 2, 9))[0](q, k.detach() + (k - k.detach()) * 2, v)

    assert error_of(KERNELS["softmax eager"], mix, torch.nn.Module(), shape(9), "forward") < 1e-5
    assert error_of(KERNELS["softmax eager"], mix, torch.nn.Module(), shape(9), "forward + backward") > 0.5


@pytest.mark.parametrize("direction", ["forward", "forward + backward"])
@pytest.mark.parametrize("tokens", [8, 20])
@pytest.mark.parametrize(
    "name", [name for name in ON_CPU if not name.endswith(("flash", "fast-transformers", "compiled"))]
)
def test_the_operations_are_those_that_torch_counts(name: str, tokens: int, direction: Direction) -> None:
    of = shape(tokens)._replace(device=torch.device("meta"))
    with torch.device("meta"):
        work = work_of(*built(KERNELS[name], of), arguments(of, narrow=KERNELS[name].narrow), direction)
        with FlopCounterMode(display=False) as counter:
            work()
    made_anew = 0
    if (name, direction) == ("linear fused", "forward + backward"):  # the product that it did not keep
        made_anew = 2 * of.windows * of.heads * of.tokens * of.width * min(of.tokens, of.width)
    assert counter.get_total_flops() - made_anew == (cost_of(KERNELS[name], of, direction)[0] or 0)


def test_a_formula_without_products_has_no_operations_to_count() -> None:
    rows, _ = sweep_shape(["fastformer native", "softmax sdpa"], shape(9), "forward", RATES, NoMeter(), 0.0, turns)
    assert (rows[0].flops, rows[0].flops_per_s) == (None, None)
    assert rows[0].roofline_share == pytest.approx(rows[0].least_bytes / RATES.bytes_per_s / 1e-3)
    assert command._cells(rows[0])[3] == "unavailable"


@pytest.mark.parametrize(("name", "dtype"), BUILT)
def test_bytes_are_those_of_what_is_read_and_made_once_each(name: str, dtype: torch.dtype) -> None:
    of = shape(9, dtype=dtype)
    mix, module = built(KERNELS[name], of)
    *given, gradient = arguments(of, narrow=KERNELS[name].narrow)
    leaves = [*(x.requires_grad_() for x in given), *module.parameters()]
    mixed = mix(*given)
    gradients = torch.autograd.grad(mixed, leaves, gradient, allow_unused=True)
    read_bytes = sum(x.nbytes for x, found in zip(leaves, gradients, strict=True) if found is not None)
    assert cost_of(KERNELS[name], of, "forward")[1] == read_bytes + mixed.nbytes
    back_bytes = read_bytes + gradient.nbytes + sum(found.nbytes for found in gradients if found is not None)
    assert cost_of(KERNELS[name], of, "forward + backward")[1] == read_bytes + mixed.nbytes + back_bytes


@pytest.mark.parametrize(("direction", "copies"), [("forward", 1), ("forward + backward", 2)])
def test_weights_have_to_fit_too(direction: Direction, copies: int) -> None:
    of = shape(1024, windows=1)
    with_weights, without = (
        check._needed_bytes(KERNELS[f"{name} native"], of, direction) for name in ("linformer", "linear")
    )
    assert with_weights - without == 2 * 2 * 256 * 1024 * (4 + 8) * copies


@pytest.mark.parametrize(("name", "weight"), [
    ("linformer native", "key_reduction_hkt"),
    ("linformer native", "value_reduction_hkt"),
    ("fastformer native", "query_score_he"),
    ("fastformer native", "key_score_he"),
])  # fmt: skip
def test_a_wrong_gradient_of_a_weight_is_seen(name: str, weight: str) -> None:
    mix, module = built(KERNELS[name], shape(9))
    module.get_parameter(weight).register_hook(lambda gradient: gradient * 1.01)
    assert error_of(KERNELS[name], mix, module, shape(9), "forward") <= TOLERANCE[torch.float32]
    assert error_of(KERNELS[name], mix, module, shape(9), "forward + backward") == pytest.approx(0.01, rel=0.1)


def test_what_does_not_fit_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    large = shape(400, windows=20)
    for free_bytes, fits in ((220e6, [False, True]), (190e6, [False, False])):  # the formula's pairs are 77e6 bytes
        monkeypatch.setattr(check, "free_bytes", lambda _, free_bytes=free_bytes: free_bytes)
        rows, _ = sweep_shape(["softmax eager", "linear fused"], large, "forward", RATES, NoMeter(), 0.0, turns)
        assert ["more than half" not in row.reason for row in rows] == fits
        assert [row.time_s is not None for row in rows] == fits


def test_the_batch_is_halved_until_every_kernel_fits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    full = shape(400, windows=64)
    names = ["softmax eager", "softmax sdpa-efficient", "linear eager"]
    for free_bytes, windows in ((2e9, 64), (8e8, 32), (1e6, 1)):  # T x T matrices of 64 windows are 4.9e8 bytes
        monkeypatch.setattr(check, "free_bytes", lambda _, free_bytes=free_bytes: free_bytes)
        assert sweep.fitting(full, names).windows == windows


@pytest.mark.parametrize(("tokens", "windows"), [(None, 1), (4096, 83)])
def test_a_batch_that_was_told_is_kept(tokens: int | None, windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(_: list[str], plan: list[Shape], *__: object) -> None:
        assert [of.windows for of in plan] == [windows]
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "free_bytes", lambda _: 1e6)
    monkeypatch.setattr(command, "_measured", measured)
    given = {"out": None, "kernel": None, "dtype": None, "direction": None, "budget": 0.0, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        command.kernels(lengths="49", tokens=tokens, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("spoiled", ["mixed", "gradient"])
def test_a_wrong_window_between_others_and_a_gradient_that_is_no_number_are_seen(spoiled: str) -> None:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed = KERNELS["softmax eager"].build(Sizes(32, 2, 9))[0](q, k, v)
        if spoiled == "gradient":
            return mixed + (q - q.detach()) * torch.tensor(math.nan).where(torch.tensor(q.requires_grad), 0.0)
        kept = torch.ones_like(mixed)
        kept[1] = 0.0
        return mixed * kept

    direction = "forward" if spoiled == "mixed" else "forward + backward"
    of = shape(9)._replace(windows=3)
    assert not error_of(KERNELS["softmax eager"], mix, torch.nn.Module(), of, direction) < 0.5


def test_a_program_that_torch_does_not_have_for_a_shape_is_skipped_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("No available kernel. Aborting execution.")  # noqa: TRY003 - torch's own words, on CUDA

    kernels = {name: KERNELS[f"softmax {name}"] for name in ("sdpa-efficient", "sdpa-flash")}
    monkeypatch.setitem(
        KERNELS, "softmax sdpa-efficient", kernels["sdpa-efficient"]._replace(unavailable=lambda *_: None)
    )
    refusing = kernels["sdpa-flash"]._replace(build=lambda _: (refuse, torch.nn.Module()))
    monkeypatch.setitem(KERNELS, "softmax sdpa-flash", refusing)
    names = ["softmax sdpa-efficient", "softmax sdpa-flash", "softmax sdpa", "softmax eager"]
    rows, _ = sweep_shape(names, shape(9), "forward + backward", RATES, NoMeter(), 0.0, turns)
    assert rows[0].reason.startswith("torch refuses: No viable backend")
    assert rows[1].reason == "torch refuses: No available kernel. Aborting execution."
    assert [row.time_s is not None for row in rows] == [False, False, True, True]


def test_another_fault_of_a_kernel_is_not_taken_for_a_refusal() -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("expected Half")  # noqa: TRY003 - torch's own words

    with pytest.raises(RuntimeError, match="Half"):
        check.judged(KERNELS["softmax sdpa"], fail, torch.nn.Module(), shape(9), "forward", {})


def test_a_row_holds_rates_and_its_distance_from_the_roofline() -> None:
    rows, _ = sweep_shape(["linear eager", "linear fused"], shape(49), "forward", RATES, NoMeter(), 0.0, turns)
    row = rows[0]
    assert row.marks == "window of 7 x 7"
    assert row.time_s == 1e-3
    assert row.flops_per_s == pytest.approx(row.flops / 1e-3)
    assert row.roofline_share == pytest.approx(max(row.flops / 1e11, row.least_bytes / 1e10) / 1e-3)
    assert (row.energy_j, row.energy_reason) == (None, "no counter here")


@pytest.mark.parametrize("name", ["linear native", "softmax native", "linear eager"])
def test_the_peak_holds_the_output_at_least(name: str) -> None:
    of = Shape(64, 49, 8, 64, torch.float32, CPU)
    rows, _ = sweep_shape([name, "softmax sdpa"], of, "forward", RATES, NoMeter(), 0.0, turns)
    assert rows[0].peak_bytes is not None
    assert rows[0].peak_bytes > 0.9 * of.matrix_bytes  # the system counts pages by the dozen


def test_joules_are_the_counters_over_as_many_works_as_fill_a_second() -> None:
    calls: list[int] = []
    assert joules(lambda: calls.append(1), lambda: None, Meter(), time_s=0.1) == (pytest.approx(0.3), "")
    assert len(calls) == 10


def test_joules_are_of_what_the_device_has_done_not_of_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    device, kernel = LazyDevice(), KERNELS["linear eager"]

    def build(sizes: Sizes) -> tuple[table.Mix, torch.nn.Module]:
        mix, module = kernel.build(sizes)
        return lambda q, k, v: (device.take(), mix(q, k, v))[1], module

    monkeypatch.setitem(KERNELS, "linear eager", kernel._replace(build=build))
    monkeypatch.setattr(sweep, "drain", lambda _: device.drain())
    rows, _ = sweep_shape(["linear eager", "softmax eager"], shape(9), "forward", RATES, device, 0.0, turns)
    assert (rows[0].energy_j, rows[0].energy_reason) == (0.25, "")


def test_a_batch_fills_the_device() -> None:
    assert Shape.filling(49, 4096, 8, 64, torch.float32, "cpu").windows == 83
    assert Shape.filling(8192, 4096, 8, 64, torch.float32, "cpu").windows == 1


@pytest.mark.parametrize("at", [20.0, 64.5, 700.0])
def test_the_crossover_of_times_that_are_powers_of_the_length_is_exact(at: float) -> None:
    points = [(tokens, at / tokens) for tokens in (16, 49, 64, 128, 1024)]
    assert crossing(points) == pytest.approx(at)


def test_the_last_crossing_counts() -> None:
    assert crossing([(1, 2.0), (2, 0.5), (4, 2.0), (8, 0.5)]) == pytest.approx(math.sqrt(32))


def found(*ratios: tuple[float, float, float]) -> object:
    points = [Point(2**n, Ratio(*ratio, 9)) for n, ratio in enumerate(ratios)]
    return crossover("linear", "softmax", "float32", "forward", points, 64)


def test_the_interval_is_where_the_ends_of_the_ratios_cross() -> None:
    each = found((4.0, 2.0, 8.0), (0.25, 0.125, 0.5))
    ends = (each.low, each.tokens, each.high)  # type: ignore[attr-defined]
    assert ends == pytest.approx((2**0.25, 2**0.5, 2**0.75))
    assert each.analytic == 64.5  # type: ignore[attr-defined]


def test_none_in_range_says_who_is_faster() -> None:
    slower, faster = found((3.0, 2.0, 4.0), (2.0, 1.5, 3.0)), found((0.5, 0.4, 0.6), (0.2, 0.1, 0.3))
    assert slower.tokens is faster.tokens is None  # type: ignore[attr-defined]
    assert slower.note == "none in range: softmax is faster at the longest, 1 to 2"  # type: ignore[attr-defined]
    assert faster.note == "none in range: linear is faster throughout, 1 to 2"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("shortest", "longest", "interval", "note"), [
    (0.99, 0.5, "unbounded to 17", "not told apart from 1 at the shortest length"),
    (2.0, 1.01, "31 to unbounded", "not told apart from 1 at the longest length"),
    (0.99, 0.99, "", "not told apart from 1 at the shortest length, the longest length"),
    (0.9, 0.5, "", "linear is faster throughout"),
    (2.0, 1.1, "", "softmax is faster at the longest"),
])  # fmt: skip
def test_an_end_of_the_interval_in_range_is_told_where_the_crossover_is_not(
    shortest: float, longest: float, interval: str, note: str
) -> None:
    """Six instances of each kernel, whose ratios differ by up to 5 % from those given."""

    def instances(value: float) -> list[Rounds]:
        off = (0.95, 0.97, 0.99, 1.01, 1.03, 1.05)
        return [Rounds({"linear fused": [round(1e6 * value * each)], "softmax sdpa": [10**6]}, "time") for each in off]

    (each,) = command.crossovers(
        {("float32", "forward", 16): instances(shortest), ("float32", "forward", 32): instances(longest)}
    )
    assert each.tokens is None
    assert each.note == f"none in range: {note}, 16 to 32"
    assert command._interval(each) == interval


def test_too_few_rounds_bound_no_interval() -> None:
    each = found((4.0, 0.0, math.inf), (0.25, 0.0, math.inf))
    assert (each.low, each.high) == (None, None)  # type: ignore[attr-defined]


def test_a_ratio_without_an_interval_beside_the_crossover_bounds_no_end() -> None:
    ratios = {49: Ratio(1.02, 1.01, 1.03, 9), 64: Ratio(0.5, 0.0, math.inf, 3), 128: Ratio(0.9, 0.88, 0.92, 9)}
    points = [Point(*each) for each in ratios.items()]
    each = crossover("linear", "softmax", "float32", "forward", points, 64)
    assert each.tokens == pytest.approx(49.4, abs=0.05)
    assert (each.low, each.high) == (None, None)


def test_flash_attention_of_torch_is_in_half_precision_on_cuda() -> None:
    unavailable = KERNELS["softmax sdpa-flash"].unavailable
    assert unavailable(CPU, torch.float32) is None
    assert unavailable(torch.device("cuda:0"), torch.bfloat16) is None
    assert "--dtype bfloat16" in (unavailable(torch.device("cuda:0"), torch.float32) or "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_times_every_kernel_or_says_why_not(dtype: torch.dtype) -> None:
    of = shape(49, width=64, dtype=dtype)._replace(device=torch.device("cuda:0"))
    rows, _ = sweep_shape(list(KERNELS), of, "forward + backward", RATES, NoMeter(), 0.0)
    assert all((row.time_s is None) == bool(row.reason) for row in rows)
    assert not [row.reason for row in rows if row.reason.startswith("wrong result")]


@pytest.mark.parametrize(("option", "message"), [
    ({"lengths": "49,x"}, "--lengths: got '49,x'"),
    ({"kernel": ["no such"]}, "--kernels: got no such"),
    ({"dtype": ["float16"]}, "--dtype: got 'float16'"),
    ({"direction": ["backward"]}, "--direction: got 'backward'"),
    ({"out": Path("/no/such/folder/x.json")}, "--out: got /no/such/folder/x.json"),
    ({"out": Path("x.csv")}, "--out: got x.csv; expected a file whose name ends in .json"),
    ({"out": Path("x")}, "--out: got x; expected a file whose name ends in .json"),
])  # fmt: skip
def test_wrong_use_is_one_line(option: dict[str, object], message: str) -> None:
    given = {"out": None, "lengths": "9", "kernel": None, "dtype": None, "direction": None, "budget": 0.0}
    with pytest.raises(ConfigError) as error:
        command.kernels(**{**given, "tokens": 9, "device": "cpu", **option})  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_the_command_writes_a_record_its_csv_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "matmul_flops_per_s", lambda *_: 1e11)
    monkeypatch.setattr(command, "copied_bytes_per_s", lambda *_: 1e10)
    out = tmp_path / "kernels.json"
    arguments = f"bench kernels --lengths 4,9 --kernels linear --tokens 18 --budget 0 --device cpu --out {out}"
    monkeypatch.setattr("sys.argv", arguments.split())
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    record = read_model(KernelsRecord, out)
    assert json.loads(out.read_text())["schema_version"] == 2
    assert record.environment.device == "cpu"
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [row["kernel"] for row in rows] == [row.kernel for row in record.rows]
    assert out.with_suffix(".svg").read_text().count("linear fused") == 1
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "unavailable" in capsys.readouterr().out


def test_a_folder_is_no_file_for_the_record(tmp_path: Path) -> None:
    folder = tmp_path / "kernels.json"
    folder.mkdir()
    with pytest.raises(ConfigError, match="expected a file whose name"):
        command._check(folder)


def test_wrong_use_says_nothing_of_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kernels.json"
    out.write_text("{}")
    monkeypatch.setattr("sys.argv", f"bench kernels --dtype float16 --out {out}".split())
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("bench: --dtype: got 'float16'")
    assert out.read_text() == "{}"


def test_what_was_measured_before_a_kill_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed_at_nine(names: list[str], of: Shape, *rest: object) -> object:
        if of.tokens == 9:
            raise KeyboardInterrupt
        return sweep_shape(names, of, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "matmul_flops_per_s", lambda *_: 1e11)
    monkeypatch.setattr(command, "copied_bytes_per_s", lambda *_: 1e10)
    monkeypatch.setattr(command, "sweep_shape", killed_at_nine)
    out = tmp_path / "kernels.json"
    given = {"lengths": "4,9", "kernel": ["linear eager"], "dtype": None, "direction": None, "budget": 0.0}
    with pytest.raises(KeyboardInterrupt):
        command.kernels(out=out, tokens=9, device="cpu", **given)  # type: ignore[arg-type]
    assert {row.tokens for row in read_model(KernelsRecord, out).rows} == {4}
    assert out.with_suffix(".csv").read_text().count("linear eager,4,") == 2


def test_what_was_skipped_is_shown_with_its_reason() -> None:
    row = sweep._row("linear eager", shape(49), "forward", error=None, reason="because")
    assert command._cells(row) == ["skipped: because"]
