"""One NVIDIA device as its driver's library (NVML) tells of it. Everything is read, nothing is ever set.

Each question is put on its own, so that a board which does not know one answer still gives the others. An answer of
the kind "never on this board" is not asked for again; any other failure is, so that a board may come back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pynvml

from profiles.energy.fields import Field, Fields
from profiles.energy.processes import UNSEEN, foreign
from profiles.energy.readings import Reading
from profiles.record import PowerSource

T = TypeVar("T")

ROUND_NS = 950_000_000
"""Once a second, or a little less as nobody comes to the nanosecond, a round of other questions is put; energy and
power are asked each time. Each question makes the training let go of the interpreter for a moment."""

GUARDED = 2
"""Rounds from asking for limits, others on the device, how long it was slowed, and what changes slowly, to the next
time; answers stand."""

SELDOM = 10
"""Of so many rounds one asks for traffic, which the driver counts for 20 ms, twice, while the asking thread waits."""

SHARED = "the board is cut into MIG instances, and NVML tells it of the whole board only"

INSTANT_UP_TO = (8, 0)
"""The compute capability of GA100: `nvmlDeviceGetPowerUsage` is instant up to it, and averaged over 1 s beyond."""

LARGEST_W = 10_000
LIMITS = 4
"""A power above so many times the limit is no power; boards exceed theirs for milliseconds, but not by as much."""

_NEVER = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)

_THROTTLES = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal_software",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal_hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power_brake",
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board_limit",
    pynvml.nvmlClocksThrottleReasonReliability: "reliability",
}
"""Reasons that make a device slower than it was set to be; being idle, or set to a clock, is none."""

_POLICIES = {
    pynvml.NVML_FI_DEV_PERF_POLICY_POWER: "power",
    pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL: "thermal",
    pynvml.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT: "board_limit",
    pynvml.NVML_FI_DEV_PERF_POLICY_RELIABILITY: "reliability",
}
"""What the board counts the time of in which it was slowed down, and how the reasons for it begin."""


class _UnusableError(Exception):
    """An answer came but is none."""


class NvmlBoard:
    """A device of the driver's, or one MIG instance of it.

    Nothing is asked before the first reading, so that a driver which hangs holds up whoever reads, not the run.

    Args:
        name: what the device is called in tables, such as `cuda:0`.
        uuid: its UUID as CUDA tells it, without prefix; of the devices that CUDA_VISIBLE_DEVICES leaves.

    """

    def __init__(self, name: str, uuid: str) -> None:
        self.name = name
        self.driver: str | None = None
        self._uuid = uuid
        self._handle: Any = None  # the instance's, where there are instances; else the board's
        self._board: Any = None
        self._closed = ""
        self._shared = ""
        self._together = True
        self._asked: dict[tuple[int, ...], Fields] = {}
        self._refused: set[tuple[str, int]] = set()
        self._why: dict[str, str] = {}
        self._limit_w: float | None = None
        self._clock_set: bool | None = None
        self._usage: PowerSource | None = None
        self._due_ns = 0
        self._rounds = 0
        self._guarded = False
        self._held: dict[str, Any] = {}
        self._questions: tuple[tuple[str, int, tuple[Callable[[], Any], ...]], ...] = (
            ("utilization_pct", 1, (self._utilization_pct,)),
            ("memory_bytes", GUARDED, (self._memory_v2_bytes, self._memory_bytes)),
            ("temperature_c", GUARDED, (self._temperature_c, self._temperature_old_c)),
            ("sm_clock_mhz", 1, (lambda: self._clock_mhz(pynvml.NVML_CLOCK_SM),)),
            ("memory_clock_mhz", GUARDED, (lambda: self._clock_mhz(pynvml.NVML_CLOCK_MEM),)),
            ("throttle", 1, (self._throttle, self._throttle_old)),
            ("slowed_ns", GUARDED, (self._slowed_ns,)),
            ("power_limit_w", GUARDED, (self._enforced_limit_w, self._set_limit_w)),
            ("clock_limit_mhz", GUARDED, (self._application_mhz, self._highest_mhz)),
            ("pcie_rx_bytes_per_s", SELDOM, (lambda: self._traffic(pynvml.NVML_PCIE_UTIL_RX_BYTES),)),
            ("pcie_tx_bytes_per_s", SELDOM, (lambda: self._traffic(pynvml.NVML_PCIE_UTIL_TX_BYTES),)),
            ("foreign_processes", GUARDED, (self._foreign_processes,)),
        )

    def read(self, now_ns: int) -> Reading:
        """Ask energy and power, and every second or two everything else; its answers stand until then.

        A device that could not be found is looked for once a second, too.
        """
        fresh = now_ns >= self._due_ns
        if fresh:
            self._due_ns, self._closed = now_ns + ROUND_NS, ""
        if not self._opened():
            return Reading(why={"device": self._closed})
        meter = self._meter()
        if fresh:
            self._ask_round()
        guarded = fresh and self._guarded
        return Reading(*meter, **self._held, clock_set=self._clock_set, fresh=fresh, guarded=guarded, why=self._why)

    def _ask_round(self) -> None:
        self._guarded = self._rounds % GUARDED == 0
        held: dict[str, Any] = {}
        for name, seldom, questions in self._questions:
            if self._rounds % seldom == 0:
                held[name] = self._ask(name, *questions)
            elif seldom == GUARDED:
                held[name] = self._held[name]
        self._held = held
        self._rounds += 1

    def read_meter(self) -> Reading:
        """Ask for energy and power alone."""
        return Reading(*self._meter()) if self._opened() else Reading()

    def power_limit_w(self) -> float | None:
        """Return the power that the board may draw, as it is enforced."""
        return self._ask("power_limit_w", self._enforced_limit_w, self._set_limit_w) if self._opened() else None

    def highest_clock_mhz(self) -> int | None:
        """Return the highest clock of its processors."""
        return self._ask("clock_limit_mhz", self._highest_mhz) if self._opened() else None

    def _opened(self) -> bool:
        """Find the device, unless that was tried in vain; whether there is one."""
        if self._handle is None and not self._closed:
            try:
                self._open()
            except pynvml.NVMLError as error:
                self._closed = f"NVML: {error}"
        return not self._closed

    def _open(self) -> None:
        pynvml.nvmlInit()
        self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        try:
            board = instance = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{self._uuid}")
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            instance = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{self._uuid}")
            board = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
            self._shared = SHARED
        else:
            with suppress(pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):  # no board with instances
                self._shared = SHARED if pynvml.nvmlDeviceGetMigMode(board)[0] else ""
        self._board, self._handle = board, instance

    def _ask(self, column: str, *questions: Callable[[], T]) -> T | None:
        """Put the first of *questions* that the board knows; where it does not answer, note why *column* is unknown.

        A failure in passing is no reason to put the next: its answer may be something else, such as another limit.
        """
        why = self._why.get(column, "")
        for place, question in enumerate(questions):
            if (column, place) in self._refused:
                continue
            try:
                answer = question()
            except _UnusableError as error:
                why = str(error)
            except pynvml.NVMLError as error:
                why = f"NVML: {error}"
                if error.value not in _NEVER:
                    break
                self._refused.add((column, place))
            else:
                if column in self._why:
                    self._why = {name: reason for name, reason in self._why.items() if name != column}
                return answer
        if self._why.get(column) != why:
            self._why = {**self._why, column: why}  # readings keep what stood when they were taken
        return None

    def _refuse_shared(self) -> None:
        if self._shared:
            raise _UnusableError(self._shared)

    def _own(self) -> Any:  # noqa: ANN401 - the driver's own handle
        """Return the handle of the device alone: of an instance, never that of the whole board."""
        if self._handle is self._board:
            self._refuse_shared()
        return self._handle

    def _meter(self) -> tuple[float | None, float | None, PowerSource | None]:
        """Ask for energy and power: in one call where the board can, from the first failure on one by one."""
        if self._together:
            try:
                return self._energy_and_power()
            except (pynvml.NVMLError, _UnusableError):
                self._together = False
        energy_j = self._ask("energy_j", self._counter_j)
        power_w, source = self._ask("power_w", self._instant_w, self._usage_w) or (None, None)
        return energy_j, power_w, source

    def _energy_and_power(self) -> tuple[float, float, PowerSource]:
        self._refuse_shared()
        energy, power = self._fields(pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, pynvml.NVML_FI_DEV_POWER_INSTANT)
        return energy.told().unsigned_long_long / 1000, self._plausible_w(power.told().unsigned), "instant"

    def _fields(self, *numbers: int) -> Sequence[Field]:
        if numbers not in self._asked:
            self._asked[numbers] = Fields(self._board, numbers)
        return self._asked[numbers].ask()

    def _counter_j(self) -> float:
        self._refuse_shared()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._board)) / 1000

    def _instant_w(self) -> tuple[float, PowerSource]:
        self._refuse_shared()
        (power,) = self._fields(pynvml.NVML_FI_DEV_POWER_INSTANT)
        return self._plausible_w(power.told().unsigned), "instant"

    def _usage_w(self) -> tuple[float, PowerSource]:
        self._refuse_shared()
        return self._plausible_w(pynvml.nvmlDeviceGetPowerUsage(self._board)), self._usage_source()

    def _usage_source(self) -> PowerSource:
        """Return what kind of power the board's usage is; where it does not tell its kind, it may be averaged."""
        if self._usage is None:
            self._usage = "average"
            with suppress(pynvml.NVMLError):
                capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(self._board))
                self._usage = "instant" if capability <= INSTANT_UP_TO else "average"
        return self._usage

    def _plausible_w(self, power_mw: int) -> float:
        power_w, largest_w = power_mw / 1000, LIMITS * self._limit_w if self._limit_w else LARGEST_W
        if not 0 < power_w <= largest_w:
            message = f"the board says {power_w:g} W, which is not within 0 to {largest_w:g} W"
            raise _UnusableError(message)
        return power_w

    def _utilization_pct(self) -> float:
        return float(pynvml.nvmlDeviceGetUtilizationRates(self._own()).gpu)

    def _memory_v2_bytes(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._own(), version=pynvml.nvmlMemory_v2).used)

    def _memory_bytes(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._own()).used)

    def _temperature_c(self) -> float:
        return float(pynvml.nvmlDeviceGetTemperatureV(self._board, pynvml.NVML_TEMPERATURE_GPU))

    def _temperature_old_c(self) -> float:
        return float(pynvml.nvmlDeviceGetTemperature(self._board, pynvml.NVML_TEMPERATURE_GPU))

    def _clock_mhz(self, kind: int) -> float:
        return float(pynvml.nvmlDeviceGetClockInfo(self._board, kind))

    def _throttle(self) -> tuple[str, ...]:
        return self._slowed(pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._board))

    def _throttle_old(self) -> tuple[str, ...]:
        return self._slowed(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._board))

    def _slowed_ns(self) -> dict[str, int]:
        """Return for how long the board was slowed down so far, by each policy of which it counts that."""
        told = dict(zip(_POLICIES.values(), self._fields(*_POLICIES), strict=True))
        counted = {why: field for why, field in told.items() if field.status == pynvml.NVML_SUCCESS}
        return {why: field.told().unsigned_long_long for why, field in (counted or told).items()}

    def _slowed(self, reasons: int) -> tuple[str, ...]:
        """Return what slows the device down; note whether a set clock does, which shows where nothing else does."""
        words = tuple(word for bit, word in _THROTTLES.items() if reasons & bit)
        if not words and not reasons & pynvml.nvmlClocksEventReasonGpuIdle:
            self._clock_set = bool(reasons & pynvml.nvmlClocksEventReasonApplicationsClocksSetting)
        return words

    def _enforced_limit_w(self) -> float:
        self._limit_w = float(pynvml.nvmlDeviceGetEnforcedPowerLimit(self._board)) / 1000
        return self._limit_w

    def _set_limit_w(self) -> float:
        self._limit_w = float(pynvml.nvmlDeviceGetPowerManagementLimit(self._board)) / 1000
        return self._limit_w

    def _application_mhz(self) -> float:
        return float(pynvml.nvmlDeviceGetApplicationsClock(self._board, pynvml.NVML_CLOCK_SM))

    def _highest_mhz(self) -> int:
        return int(pynvml.nvmlDeviceGetMaxClockInfo(self._board, pynvml.NVML_CLOCK_SM))

    def _traffic(self, direction: int) -> float:
        return float(pynvml.nvmlDeviceGetPcieThroughput(self._board, direction)) * 1000  # told in KB/s

    def _foreign_processes(self) -> int:
        """Count the processes on the device that are not ours; see `foreign`."""
        found = foreign({process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(self._own())})
        if found is None:
            raise _UnusableError(UNSEEN)
        return found
