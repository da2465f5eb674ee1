"""The machine's processor as a device: its load, its memory and, where the kernel tells, its energy (RAPL).

All of it is of the whole machine, a container included: the energy counter knows nothing smaller.
"""

from collections.abc import Iterator
from pathlib import Path

import psutil

from profiles.energy.readings import Reading

POWERCAP = Path("/sys/class/powercap")

ROUND_NS = 950_000_000
"""Load and memory are asked once a second, or a little less as nobody comes to the nanosecond; energy each time."""


class Package:
    """The energy counter of one processor package, without its turning over."""

    def __init__(self, folder: Path) -> None:
        self.counter = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._turned_uj = 0
        self._last_uj = 0

    def read_uj(self) -> int:
        """Return the microjoules counted; it must be read at least once in each turn, which takes minutes."""
        now_uj = int(self.counter.read_text())
        if now_uj < self._last_uj:
            self._turned_uj += self._range_uj
        self._last_uj = now_uj
        return self._turned_uj + now_uj


class Host:
    """The processor, its memory and its energy.

    Args:
        name: what the device is called in tables.
        powercap: where the kernel shows its energy counters.

    """

    def __init__(self, name: str = "cpu", powercap: Path = POWERCAP) -> None:
        self.name = name
        self._packages, self.why_no_energy = packages(powercap)
        self._due_ns = 0
        self._held: tuple[float | None, int] = (None, 0)
        self._times_s: tuple[float, float] | None = None

    def read(self, now_ns: int) -> Reading:
        """Ask for energy, and once a second for everything else; its answers stand until then."""
        energy_j = self._counter_j()
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + ROUND_NS
            self._held = self._load_pct(), int(psutil.virtual_memory().used)
        utilization_pct, memory_bytes = self._held
        return Reading(
            energy_j=energy_j,
            utilization_pct=utilization_pct,
            memory_bytes=memory_bytes,
            why={"energy_j": self.why_no_energy, "power_w": self.why_no_energy} if energy_j is None else {},
        )

    def read_meter(self) -> Reading:
        """Ask for the counter alone."""
        return Reading(energy_j=self._counter_j())

    def _load_pct(self) -> float | None:
        """Return how busy the processors were since it was last asked; the first time it is not known.

        `psutil.cpu_percent` remembers for each thread of its own when it was last asked, and answers 0 the first time.
        """
        before_s, now_s = self._times_s, _processor_times_s()
        self._times_s = now_s
        if before_s is None or now_s[1] <= before_s[1]:
            return None
        share = (now_s[0] - before_s[0]) / (now_s[1] - before_s[1])
        return round(100 * min(max(share, 0.0), 1.0), 1)

    def _counter_j(self) -> float | None:
        """Return the joules of all packages together, counted from some moment on."""
        if not self._packages:
            return None
        try:
            return sum(package.read_uj() for package in self._packages) / 1e6
        except OSError as error:
            self.why_no_energy = f"{error.filename}: {error.strerror}"
            return None


def _processor_times_s() -> tuple[float, float]:
    """Return the seconds in which processors were busy, and all of their seconds, since the machine was started."""
    times_s = psutil.cpu_times()
    all_s = sum(times_s) - getattr(times_s, "guest", 0.0) - getattr(times_s, "guest_nice", 0.0)  # within user and nice
    return all_s - times_s.idle - getattr(times_s, "iowait", 0.0), all_s


def packages(powercap: Path = POWERCAP) -> tuple[list[Package], str]:
    """Return the packages whose counter can be read, all or none; and if none, why."""
    try:
        found = [Package(folder) for folder in _package_folders(powercap)]
        for package in found:
            package.read_uj()
    except PermissionError as error:
        return [], f"{error.filename} is not readable for this user"
    except (OSError, ValueError) as error:
        return [], f"the kernel's energy counter cannot be read: {error}"
    return found, "" if found else "the kernel exposes no RAPL counter"


def _package_folders(powercap: Path) -> Iterator[Path]:
    """Find whole packages: `intel-rapl:0`, also on AMD; parts of them (`intel-rapl:0:1`) and the platform stay out."""
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package"):
            yield folder
