"""Projection of a cell: measure a grid, fit half of it, say how far off the other half is, answer what was asked."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from harness.cells import Cell
from harness.config import RunConfig, build, set_key
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.whatif.grid import Made, extent_of, held_out, observe, settings_of, shape_of
from harness.whatif.loads import Machine, Setting, Shape, terms
from harness.whatif.projection import Costs, Observed, fit, project
from profiles.errors import ConfigError
from profiles.whatif import AskedRow, CostRow, FitRow, SettingRow

KEYS = {"workers": "data.workers", "batch_size": "training.batch_size", "image_side": "data.image_side"}
"""What is varied, by the configuration's name for it."""

LEAST_SETTINGS = 4

ASSUMPTIONS = (
    "Loader, host and device are three resources; in the long run a step takes as long as what it is held up by.",
    "The training steps of an epoch, all of a whole batch; validation and what is done once are not in it.",
    "Another device is as far from its best rates as this one is from its own, stage by stage.",
    "All of loading is done at the rate of decoding: where that doubles, so do those of resizing and copying.",
    "Where the device is apart, the host is as fast as this one, and neither waits for the other.",
)

Levels = dict[str, tuple[int, ...]]


class Wish(NamedTuple):
    """What is asked of a projection: settings to be measured, as far as they are named, and those to be predicted."""

    vary: Sequence[str]
    at: Sequence[str]


class Projection(NamedTuple):
    """What was found of one cell or of several."""

    fits: tuple[FitRow, ...] = ()
    settings: tuple[SettingRow, ...] = ()
    costs: tuple[CostRow, ...] = ()
    asked: tuple[AskedRow, ...] = ()

    def and_(self, more: "Projection") -> "Projection":
        """Return this with *more* behind it."""
        return Projection(
            self.fits + more.fits,
            self.settings + more.settings,
            self.costs + more.costs,
            self.asked + more.asked,
        )


class Asked(NamedTuple):
    """One question: in its words, at which setting, and on which machine."""

    words: str
    setting: Setting
    machine: Machine


def levels_of(cell: Cell, config: RunConfig, vary: Sequence[str]) -> Levels:
    """Return the levels of each thing varied: those named by `--vary KEY=A,B,C`, else some at and below the configured.

    Where no process loads, their number is not varied.

    Raises:
        ConfigError: something else was named, or what is named cannot be.

    """
    side, patch = config.image_side(cell.category), config.model.patch_side
    least, batch = config.model.window_side * patch, config.training.batch_size
    loads = PIPELINES[cell.pipeline].reloads_every_window
    levels = {
        "workers": (1, 2, 4) if loads else (config.data.workers,),
        "batch_size": tuple(sorted({max(1, batch // part) for part in (4, 2, 1)})),
        "image_side": tuple(sorted({max(least, side * part // 4 // patch * patch) for part in (2, 3, 4)})),
    }
    for text in vary:
        name, numbers = _varied(text)
        if name != "workers" or loads:
            levels[name] = numbers
    if len(settings_of(levels)) < LEAST_SETTINGS:
        got = ", ".join(f"{name}={','.join(map(str, values))}" for name, values in levels.items())
        fix = "--vary batch_size=8,16 --vary image_side=128,256"
        raise ConfigError("--vary", got=got, expected=f"{LEAST_SETTINGS} settings or more", fix=fix)
    return levels


def _varied(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, values = text.partition("=")
    try:
        numbers = tuple(sorted({int(value) for value in values.split(",")}))
    except ValueError:
        numbers = ()
    if name not in KEYS or not numbers or numbers[0] < 1:
        expected = f"one of {', '.join(KEYS)}, and whole numbers from 1 on"
        raise ConfigError("--vary", got=repr(text), expected=expected, fix="--vary batch_size=8,16,32")
    return name, numbers


def at_setting(config: RunConfig, setting: Setting, option: str = "--vary") -> RunConfig:
    """Return the configuration with a setting that an *option* named.

    Raises:
        ConfigError: they do not fit together.

    """
    table = config.model_dump(mode="json", exclude_none=True)
    for name, value in setting._asdict().items():
        set_key(table, KEYS[name], value, option)
    return build(table, option)


def asked_of(text: str, setting: Setting, machine: Machine) -> Asked:
    """Read `KEY=VALUE,KEY=VALUE`, what differs from *setting* and *machine*.

    Raises:
        ConfigError: there is no such key, or a value is none of its kind.

    """
    for pair in text.split(",") if text else ():
        name, _, value = pair.partition("=")
        try:
            setting, machine = _changed(name, value, setting, machine)
        except (KeyError, ValueError) as error:
            expected = f"one of {', '.join((*KEYS, *Machine._fields))}, and a number above 0; of apart, true or false"
            raise ConfigError(
                "--at", got=repr(pair), expected=expected, fix="--at workers=8,flops_per_s=13e12"
            ) from error
    return Asked(text or "as configured", setting, machine)


def _changed(name: str, value: str, setting: Setting, machine: Machine) -> tuple[Setting, Machine]:
    if name == "apart":
        return setting, machine._replace(apart={"true": True, "false": False}[value])
    if name not in {*KEYS, *Machine._fields}:
        raise KeyError(name)
    number = float(value)
    if not 0 < number < math.inf or (name in {*KEYS, "processors"} and number != int(number)):
        raise ValueError(value)
    if name in KEYS:
        return setting._replace(**{name: int(number)}), machine
    changed: dict[str, Any] = {name: int(number) if name == "processors" else number}
    return setting, machine._replace(**changed)


def projected(
    cell: Cell,
    config: RunConfig,
    made: Made,
    wish: Wish,
    here: Machine,
    threads: int,
    images: int,
    reporter: Reporter,
    limit_s: float,
) -> Projection:
    """Measure a cell's grid for *limit_s*, about, and predict.

    Args:
        cell: which.
        config: its run's.
        made: makes the subject of a setting.
        wish: what is varied, and what is asked.
        here: this machine; its rate of decoding is found.
        threads: that the device computes by, where it is this machine's processors.
        images: that are trained on.
        reporter: whom it tells how far it is.
        limit_s: after which no round begins.

    """
    levels = levels_of(cell, config, wish.vary)
    settings = settings_of(levels)
    reporter.begin(f"{cell.name}: the grid", None, "settings")
    observed = observe(made, settings, limit_s, partial(reporter.advance, 1))
    reporter.end()
    shape = shape_of(made(observed[0].setting, extent_of(observed[0].setting)), PIPELINES[cell.pipeline])
    costs = fit(shape, [each for each in observed if not held_out(each.setting, levels)], here, threads)
    rows = [_row(cell, each, shape, costs, held_out=held_out(each.setting, levels)) for each in observed]
    usual = Setting(config.data.workers, config.training.batch_size, config.image_side(cell.category))
    asked = [asked_of(text, usual, costs.machine) for text in ("", *wish.at)]
    windows = images * config.training.windows_per_image
    return Projection(
        (_fit_row(cell, rows, costs, shape),),
        tuple(rows),
        tuple(_cost_rows(cell, shape, costs, usual)),
        tuple(_answer(cell, each, shape, costs, windows, levels) for each in asked),
    )


def _row(cell: Cell, seen: Observed, shape: Shape, costs: Costs, *, held_out: bool) -> SettingRow:
    found = project(costs, shape, seen.setting)
    error = found.step_s / seen.step_s - 1
    return SettingRow(
        *cell[:3], *seen.setting, held_out, seen.step_s, found.step_s, error, found.held_up_by, seen.rounds
    )


def _fit_row(cell: Cell, rows: Sequence[SettingRow], costs: Costs, shape: Shape) -> FitRow:
    """Sum up the errors."""
    kept, out = ([abs(row.error) for row in rows if row.held_out == which] for which in (False, True))
    loads = shape.pipeline.reloads_every_window
    return FitRow(
        *cell[:3],
        len(kept),
        len(out),
        median(kept),
        median(out),
        max(out),
        costs.overhead,
        costs.occupied,
        costs.machine.decoded_per_s if loads else None,
        shape.stored_values,
    )


def _cost_rows(cell: Cell, shape: Shape, costs: Costs, setting: Setting) -> list[CostRow]:
    units = {(term.stage, term.per): term.resource for term in terms(shape, setting, costs.machine.rates)}
    return [CostRow(*cell[:3], stage, units[stage, per], per, cost) for (stage, per), cost in costs.per_unit_s.items()]


def _answer(cell: Cell, asked: Asked, shape: Shape, costs: Costs, windows: int, levels: Levels) -> AskedRow:
    found = project(costs, shape, asked.setting, asked.machine)
    machine = asked.machine
    return AskedRow(
        *cell[:3],
        asked.words,
        *asked.setting,
        *machine[:3],
        machine.decoded_per_s if shape.pipeline.reloads_every_window else None,
        machine.apart,
        found.step_s,
        math.ceil(windows / asked.setting.batch_size) * found.step_s,
        found.held_up_by,
        found.loader_s,
        found.host_s,
        found.device_s,
        _beyond(asked, costs.machine, levels),
    )


def _beyond(asked: Asked, measured: Machine, levels: Levels) -> str:
    """Name what lies outside of what was measured."""
    outside = [
        name for name, value in asked.setting._asdict().items() if not min(levels[name]) <= value <= max(levels[name])
    ]
    mine, theirs = measured._asdict(), asked.machine._asdict()
    return ", ".join([*outside, *(name for name in mine if mine[name] != theirs[name])])
