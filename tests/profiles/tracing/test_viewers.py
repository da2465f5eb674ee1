"""The traces of a run, read by those who view them: by Perfetto's rules, by TraceInsight, by a running TensorBoard."""

import gzip
import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from hta.trace_analysis import TraceAnalysis

from harness.config import build
from harness.directory import RunDirectory
from harness.launch import start
from profiles.record import CellRecord, ProfilerWindow, read_model
from profiles.timing.clock import ANNOTATION, BACKWARD_PASS
from profiles.tracing.attribution import STEP
from tests.harness.conftest import tiny_table

PATIENCE_S = 120


class Event(NamedTuple):
    """A complete event of a trace, on its track."""

    name: str
    category: str
    track: tuple[int | str, int | str]
    start_ns: int
    end_ns: int


class Viewed(NamedTuple):
    """A run, the trace of one of its cells, and what the record says of that trace."""

    run: Path
    trace: Path
    window: ProfilerWindow

    def read(self) -> list[dict[str, Any]]:
        """Return the trace's events as they were written; floats could not hold their nanoseconds."""
        trace = json.loads(gzip.decompress(self.trace.read_bytes()), parse_float=Decimal)
        return trace["traceEvents"]

    def events(self) -> list[Event]:
        """Return the complete events, those around others first."""
        events = [
            Event(
                name=event["name"],
                category=event["cat"],
                track=(event["pid"], event["tid"]),
                start_ns=int(event["ts"] * 1000),
                end_ns=int((event["ts"] + event["dur"]) * 1000),
            )
            for event in self.read()
            if event["ph"] == "X"
        ]
        return sorted(events, key=lambda event: (event.start_ns, -event.end_ns))


@pytest.fixture(scope="module")
def viewed(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Viewed:
    """Return a finished run of two cells, each with a window in its second epoch; not to be changed."""
    table = tiny_table(generated, max_epochs=2)
    table["data"]["categories"] = ["weave"]
    run = tmp_path_factory.mktemp("viewed") / "run"
    cell = start(build({**table, "device": "cpu"}, "tiny"), run).cells[0]
    folder = RunDirectory(run).cell(cell.name)
    (seen,) = read_model(CellRecord, folder.record).observations
    assert seen.window is not None
    assert seen.window.trace is not None
    return Viewed(run, folder.traces / seen.window.trace, seen.window)


def enclosed(events: list[Event]) -> Iterator[tuple[Event, Event | None]]:
    """Yield every event with the one of its track that is open when it starts, the last to have started."""
    tracks: dict[tuple[int | str, int | str], list[Event]] = defaultdict(list)
    for event in events:
        around = tracks[event.track]
        while around and around[-1].end_ns <= event.start_ns:
            around.pop()
        yield event, around[-1] if around else None
        around.append(event)


def test_perfetto_finds_what_it_reads_of_an_event(viewed: Viewed) -> None:
    complete = [event for event in viewed.read() if event["ph"] == "X"]
    assert len(complete) >= viewed.window.events
    for event in complete:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int | str)
        assert isinstance(event["tid"], int | str)
        assert event["ts"] > 0
        assert event["dur"] >= 0


def test_perfetto_finds_no_events_that_overlap_without_nesting(viewed: Viewed) -> None:
    pairs = [(event, around) for event, around in enclosed(viewed.events()) if around is not None]
    assert len(pairs) > viewed.window.steps
    assert [(event, around) for event, around in pairs if event.end_ns > around.end_ns] == []


# TraceInsight 0.6.1 resets an index in place, of which pandas 3.1 warns.
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
def test_traceinsight_finds_the_times_that_were_attributed(viewed: Viewed) -> None:
    analysis = TraceAnalysis(trace_files={0: str(viewed.trace)}, include_last_profiler_step=True)
    assert len(analysis.get_profiler_steps()) == viewed.window.steps
    table = analysis.get_gpu_user_annotation_breakdown(use_gpu_annotation=False, visualize=False, duration_ratio=1.0)
    durations_s = dict(zip(table["name"], table["sum (us)"] / 1e6, strict=True))
    found_s = {name: durations_s[name] for name in durations_s if name.startswith((ANNOTATION, BACKWARD_PASS))}
    assert found_s == pytest.approx(attributed_s(viewed.window), abs=0.005 * viewed.window.wall_s)


def attributed_s(window: ProfilerWindow) -> dict[str, float]:
    """Return what a window says of each stage, but its backward work; of that, the sum."""
    durations_s: dict[str, float] = defaultdict(float)
    for cell in window.cells:
        if cell.direction == "backward":
            durations_s[BACKWARD_PASS] += cell.exposed_s
        elif cell.stage != "unattributed" and cell.exposed_s > 0:
            durations_s[f"{ANNOTATION}{cell.stage}"] += cell.exposed_s
    return dict(durations_s)


class Board(NamedTuple):
    """A TensorBoard that is running here, and the file it logs to."""

    server: subprocess.Popen[bytes]
    log: Path

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is true, while the server runs."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not ready():
            assert self.server.poll() is None, self.log.read_text()
            assert time.monotonic() < give_up_s, self.log.read_text()
            time.sleep(0.2)

    def ports(self) -> list[str]:
        """Return the port it says it listens on, once it has said so."""
        return re.findall(r"TensorBoard .* at http://127\.0\.0\.1:(\d+)/", self.log.read_text())

    def get(self, path: str, **query: str) -> bytes:
        """Return a page, undecoded."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.ports()[0]), timeout=PATIENCE_S)
        try:
            connection.request("GET", f"/data/{path}?{urlencode(query)}")
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status == http.HTTPStatus.OK, (path, query, content)
        return content

    def ask(self, question: str, **query: str) -> Any:
        """Return what the profiler plugin answers."""
        return json.loads(self.get(f"plugin/pytorch_profiler/{question}", **query))


@contextmanager
def tensorboard(logdir: Path, log: Path) -> Iterator[Board]:
    """Run a TensorBoard as a user would, but on a port of its choice."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as server:
        board = Board(server, log)
        try:
            board.wait(lambda: bool(board.ports()))
            yield board
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.mark.parametrize("whole", [False, True], ids=["a cell's traces", "a run"])
def test_tensorboard_shows_the_steps_and_operators_of_a_trace(viewed: Viewed, tmp_path: Path, *, whole: bool) -> None:
    traces = viewed.trace.parent
    logdir = viewed.run if whole else traces
    runs = {str(folder.relative_to(logdir)) for folder in logdir.rglob("traces")} if whole else {traces.name}
    worker = viewed.trace.name.removesuffix(".pt.trace.json.gz")
    mine = {"run": str(traces.relative_to(logdir)) if whole else traces.name, "worker": worker, "span": "default"}
    with tensorboard(logdir, tmp_path / "log") as board:
        board.wait(lambda: set(board.ask("runs")["runs"]) == runs)
        assert json.loads(board.get("plugins_listing"))["pytorch_profiler"]["enabled"]
        assert board.ask("views", **mine) == ["Overview", "Operator", "Trace"]
        assert board.ask("workers", **mine, view="Overview") == [worker]
        assert_same_steps(board.ask("overview", **mine), viewed)
        assert_same_operators(board.ask("operation/table", **mine, group_by="Operation"), viewed)
        assert board.get("plugin/pytorch_profiler/trace", **mine) == viewed.trace.read_bytes()


def assert_same_steps(overview: Any, viewed: Viewed) -> None:
    """Compare the plugin's steps with ours: their numbers, and their mean, which it rounds to microseconds."""
    steps_us = [(event.end_ns - event.start_ns) / 1000 for event in viewed.events() if event.name.startswith(STEP)]
    assert [row[0] for row in overview["steps"]["rows"]] == [str(step) for step in range(viewed.window.steps)]
    assert overview["performance"][0]["value"] == pytest.approx(sum(steps_us) / viewed.window.steps, abs=1)


def assert_same_operators(table: Any, viewed: Viewed) -> None:
    """Compare the plugin's operators with ours: their names, and their calls but where some call themselves.

    It merges an operator that does nothing but call itself with that call.
    """
    operators = [(event, around) for event, around in enclosed(viewed.events()) if event.category == "cpu_op"]
    calls = Counter(event.name for event, _ in operators)
    of_themselves = {event.name for event, around in operators if around is not None and around.name == event.name}
    shown = {row["name"]: row["calls"] for row in table["data"]}
    assert shown.keys() == calls.keys()
    assert len(of_themselves) < len(calls) / 10
    assert [name for name in calls.keys() - of_themselves if shown[name] != calls[name]] == []
