"""Training (thesis section 4.5): Adam, windows drawn anew each epoch, stop when validation no longer improves.

Every step can be the last: the state at a step's end is whole, and a training resumed from it ends in the same
numbers as one that was never stopped. The state of a finished epoch is saved at the beginning of whatever follows,
when the epoch's rows are written, so that checkpoint and tables never contradict each other. Within an epoch it is
saved when asked to stop, and every so often (`save_every_s`): a process that is killed loses no more than that.
"""

import itertools
import math
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from harness import checkpoint
from harness.interrupt import Interrupt
from harness.log import CellLog
from harness.pipelines.parts import Batch, Images, Loaded, PatchLoss, Pipeline
from harness.progress import Reporter
from harness.ranks import ALONE, Ranks
from harness.seeding import generator_for
from models.windows import Windows, draw_windows
from profiles.errors import DivergedError, InterruptedRunError
from profiles.record import EpochRow, Observation, StoppedBy
from profiles.stages import backpropagate, stage
from profiles.timing.times import PhaseTimes
from profiles.tracing.observation import Observer, Rehearsal

KEPT_TRACES = 3
"""Of an early, a middle and a late epoch."""

INTERRUPTED = "interrupted while steps were looked at"
"""Why an observation has nothing to show."""

GO_ON, SAVE, STOP = range(3)
"""What a rank may wish after a step; what any of them wishes most, all of them do."""


class TrainingConfig(BaseModel):
    """How a model is trained; the defaults are the thesis's."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="of Adam")
    batch_size: int = Field(default=256, gt=0, description="windows of a step")
    max_epochs: int = Field(default=20_000, gt=0, description="epochs at most")
    patience: int = Field(default=150, gt=0, description="epochs without a lower validation loss before it stops")
    windows_per_image: int = Field(default=600, gt=0, description="windows of each image in an epoch")
    warmup_steps: int = Field(default=0, ge=0, description="steps before the first epoch, undone afterwards")
    measured_steps: int | None = Field(
        default=None, gt=0, description="one epoch of at most so many steps, not to convergence"
    )
    save_every_s: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="seconds between two saves of the state within an epoch"
    )


@dataclass
class Progress:
    """How far a training is. Epochs count from 1; epoch 0 is what comes before.

    `step` counts the finished steps of `epoch`; `loss_sum` sums their windows' losses; `times` are their stages.
    `step_ns` holds the host time of each measured step, `draw_ns` that of drawing an epoch's windows, `start_ns` what
    the first batch was waited for longer than later ones, and `validation_lead_ns` what the steps of validation took
    whose batches were fetched before any was asked for.
    `damaged` says of each checkpoint that could not be read what was wrong with it.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_validation_loss: float = math.inf
    stopped_by: StoppedBy | None = None
    resumed: int = 0
    damaged: list[str] = field(default_factory=list)
    step_ns: list[int] = field(default_factory=list)
    draw_ns: int = 0
    start_ns: int = 0
    validation_lead_ns: int = 0
    times: PhaseTimes | None = None
    observations: list[Observation] = field(default_factory=list)

    def to_state(self) -> dict[str, Any]:
        """Return plain values, fit for a checkpoint."""
        times = self.times.to_state() if self.times else None
        observations = [observation.model_dump_json() for observation in self.observations]
        return {**vars(self), "times": times, "observations": observations}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Read back what `to_state` returned."""
        times = PhaseTimes.from_state(state["times"]) if state["times"] else None
        observations = [Observation.model_validate_json(text) for text in state["observations"]]
        return cls(**{**state, "times": times, "observations": observations})


def is_observed(epoch: int) -> bool:
    """Whether an epoch's steps are looked at: the second, for the first is cold, and whenever their number has doubled.

    However long a training turns out to be, that is an early epoch, a middle one, and one of its latter half.
    """
    return epoch > 1 and epoch & (epoch - 1) == 0


class Setting(NamedTuple):
    """Where a training takes place: log, folder, whom it tells, who may stop it, who looks closely, its ranks."""

    cell: str
    log: CellLog
    checkpoints: Path
    reporter: Reporter
    interrupt: Interrupt
    observer: Observer | None
    ranks: Ranks = ALONE


class Trainer:
    """A model in training: its weights, its optimizer, and how far it is.

    Args:
        model: takes (context_bkp, positions_bt) to predictions (B, P).
        train: the images trained on.
        validation: the images whose windows, drawn once, decide when to stop.
        loss: predictions (B, P) and targets (B, P) to a scalar.
        pipeline: how windows are cut, and whose optimizer it is.
        config: how to train.
        seed: decides the windows.
        setting: where.

    """

    def __init__(
        self,
        model: nn.Module,
        train: Images,
        validation: Images,
        loss: PatchLoss,
        pipeline: Pipeline,
        config: TrainingConfig,
        seed: int,
        setting: Setting,
    ) -> None:
        self.model = model
        self.at = Progress()
        self._train = train
        self._validation = validation
        self._loss = loss
        self._pipeline = pipeline
        self._config = config
        self._seed = seed
        self._setting = setting
        self._ranks = setting.ranks
        self._parallel = self._ranks.model(model, train.device)
        self.optimizer = self._new_optimizer()
        self._saved_s = monotonic()
        self._save_is_due = False
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=train.device)  # on the device: no wait per step
        self._validation_windows = self._draw(validation, "validation")
        self._measured: Generator[Batch, None, None] | None = None

    @property
    def windows_per_epoch(self) -> int:
        """Windows of a whole epoch, whether or not one is run."""
        return len(self._train) * self._config.windows_per_image

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of a whole epoch, whether or not one is run."""
        return math.ceil(self.windows_per_epoch / self._config.batch_size)

    @property
    def epoch_steps(self) -> int:
        """Training steps that an epoch runs: all, or as many as are measured."""
        return min(self.steps_per_epoch, self._config.measured_steps or self.steps_per_epoch)

    @property
    def _epoch_windows(self) -> int:
        """Windows of the training steps that an epoch runs."""
        return min(self.epoch_steps * self._config.batch_size, self.windows_per_epoch)

    @property
    def validation_steps_per_epoch(self) -> int:
        """Validation steps of a whole epoch, whether or not one is run."""
        return math.ceil(len(self._validation_windows.image_b) / self._config.batch_size)

    @property
    def validation_steps(self) -> int:
        """Validation steps that an epoch runs: all, or as many as are measured after those fetched ahead."""
        steps, measured = self.validation_steps_per_epoch, self._config.measured_steps
        return steps if measured is None else min(steps, self._validation.fetched_ahead + measured)

    def restore(self, saved: checkpoint.Saved) -> None:
        """Go on from what `save` wrote."""
        state = saved.state
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at = Progress.from_state(state["progress"])
        self.at.resumed += 1
        self.at.damaged += [saved.damaged] if saved.damaged else []
        self._loss_sum.fill_(self.at.loss_sum if self._ranks.leads else 0.0)
        if saved.damaged and self._ranks.leads:
            with stage("checkpoint"):
                checkpoint.replace_damaged(self._setting.checkpoints, self._state())

    def save(self) -> None:
        """Write `last.pt`, the state to go on from; all ranks call this, and the first one writes."""
        with stage("checkpoint"):
            if not self._ranks.leads:
                self._setting.log.sync()  # before the first rank writes; that one syncs its own as it does
            self.at.loss_sum = self._ranks.total(self._loss_sum)
        if self._ranks.leads:
            self.save_whole()
        self._saved_s, self._save_is_due = monotonic(), False

    def save_whole(self) -> None:
        """Write `last.pt` where the sum of losses is known, between epochs and after the last; see `save_last`."""
        with stage("checkpoint"):
            self._setting.log.sync()
            checkpoint.save_last(self._setting.checkpoints, self._state())

    def _save_within(self) -> None:
        """Save within an epoch's train phase, with what clock and meters told of it so far.

        The phase's part so far ends for that, so that its times add up. What saving takes belongs to the next part.
        """
        with stage("checkpoint"):
            self._refuse_infinite_state()
        self.at.times = self._setting.log.next_part()
        self.save()
        self.at.times = None

    def _state(self) -> checkpoint.State:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**state, "progress": self.at.to_state()}

    def warm_up(self) -> None:
        """Run steps that no number counts and that leave no trace in the model.

        Raises:
            InterruptedRunError: someone asked to stop; nothing needs saving yet.

        """
        warm = self._config.warmup_steps
        if warm == 0:
            return
        self._setting.reporter.begin(f"{self._setting.cell} warm-up", warm, "steps")
        with self._undone(), closing(self._endless(self._draw(self._train, "train", 0))) as batches:
            for _ in range(warm):
                self._uncounted_step(batches)
        self._setting.reporter.end()

    def lead_in(self) -> None:
        """Begin the loader of an epoch that is measured by a few of its steps, and bring it to the epoch's middle.

        What a loader fetches ahead is used up by steps that no number counts and that leave no trace in the model; the
        epoch's own batches follow from the same loader, whose queue is then as full as it is in most of an epoch.

        Raises:
            InterruptedRunError: someone asked to stop; nothing needs saving yet.

        """
        if self._config.measured_steps is None or self.at.stopped_by is not None:
            return
        ahead, size = self._train.fetched_ahead, self._config.batch_size
        before, epoch = self._draw(self._train, "train", 0), self._draw(self._train, "train", self.at.epoch)
        leading = before.select(torch.arange(ahead * size) % len(before.image_b))
        self._measured = self._batches(self._train, leading.followed_by(epoch.select(slice(self.at.step * size, None))))
        if ahead:
            self._setting.reporter.begin(f"{self._setting.cell} lead-in", ahead, "steps")
            try:
                with self._undone():
                    waits_ns = [self._uncounted_step(self._measured) for _ in range(ahead)]
            except BaseException:
                self._end_measured()
                raise
            self.at.start_ns = max(0, waits_ns[0] - waits_ns[-1])
            self._setting.reporter.end()

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Put weights and optimizer back to what they were before."""
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        averages = deepcopy(self.optimizer.state_dict())
        yield
        self.model.load_state_dict(weights)
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(averages)

    def _look_afterwards(self) -> None:
        """Look closely at further steps where only a few are measured: those are over, so nothing can slow them down.

        The state is saved before and read back, so that it keeps no trace of these steps, and no copy adds to the peak
        of memory.
        """
        observer = self._setting.observer
        if observer is None or self._config.measured_steps is None or self.at.observations:
            return
        self.save_whole()
        self._setting.reporter.begin(f"{self._setting.cell} observation", None, "steps")
        with closing(self._endless(self._draw(self._train, "train", 0))) as batches, observer.clock.phase("train", 0):

            def step() -> None:
                self._uncounted_step(batches)

            seen = observer.observe(step, 0, self.steps_per_epoch, self._rehearsal)
        state = checkpoint.load(self._setting.checkpoints / "last.pt", torch.device("cpu"))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at.observations.append(seen)
        self._setting.reporter.end()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return self._pipeline.optimizer(self.model.parameters(), self._config.learning_rate)

    def _endless(self, windows: Windows) -> Generator[Batch, None, None]:
        """Cut *windows* over and over."""
        while True:
            yield from self._batches(self._train, windows)

    def _uncounted_step(self, batches: Iterator[Batch]) -> int:
        """Take a step on the next of *batches*; return how long that was waited for, in nanoseconds."""
        started_ns = perf_counter_ns()
        batch = next(batches)
        waited_ns = perf_counter_ns() - started_ns
        self._step(batch, torch.zeros_like(self._loss_sum), self._config.batch_size)
        with stage("patching"):
            del batch
        self._setting.reporter.advance(1)
        self._check()
        return waited_ns

    def _check(self) -> None:
        """Stop here if anyone asked any of the ranks to; else learn whether the first of them finds it time to save."""
        interrupt = self._setting.interrupt
        is_due = self._ranks.leads and monotonic() - self._saved_s >= self._config.save_every_s
        wish = self._ranks.highest(STOP if interrupt.is_requested() else SAVE if is_due else GO_ON)
        self._save_is_due = wish == SAVE
        if wish == STOP:
            interrupt.check()
            message = "interrupted by another rank"
            raise InterruptedRunError(message)

    def train(self) -> None:
        """Train to the stopping rule, from wherever the training is; then look closely, where only a few steps count.

        Raises:
            InterruptedRunError: someone asked to stop; `last.pt` holds the state.
            DivergedError: the loss is not finite; the checkpoints are those of the last good epoch.

        """
        try:
            while self.at.stopped_by is None:
                self._epoch()
        except InterruptedRunError:
            self._refuse_infinite_state()
            self.save()
            raise
        finally:
            self._end_measured()
            self._setting.reporter.end()
        self._look_afterwards()

    def _end_measured(self) -> None:
        """End the loader of the measured steps, which has fetched what no step takes."""
        if self._measured is not None:
            self._measured.close()

    def _epoch(self) -> None:
        """Train and validate one epoch, write its rows, and move on to the next."""
        at = self.at
        self._setting.log.epoch_start(at.epoch)
        windows, reporter = self._epoch_windows, self._setting.reporter
        done = at.step * self._config.batch_size
        reporter.begin(f"{self._setting.cell} epoch {at.epoch}", windows, "windows", done)
        train_times = self._timed_train_epoch()
        self._end_measured()  # between the phases: the end of a whole epoch finds nothing fetched ahead
        reporter.begin(f"{self._setting.cell} validation", self.validation_steps, "steps")
        with self._setting.log.phase("validation", at.epoch) as validation_times:
            validation_loss = self._validate()
            with stage("loss"):
                train_loss = self._ranks.total(self._loss_sum) / windows
            self._refuse_infinite(train_loss, validation_loss)
            if is_best := validation_loss < at.best_validation_loss:
                at.best_epoch, at.best_validation_loss = at.epoch, validation_loss
        wall_s = (train_times.wall_ns + validation_times.wall_ns) / 1e9
        row = EpochRow(at.epoch, train_loss, validation_loss, wall_s, windows, is_best, self._was_looked_at)
        self._setting.log.epoch(row)
        at.stopped_by = self._stopping_rule()
        self._tell(row)
        at.epoch, at.step, at.times, at.loss_sum = at.epoch + 1, 0, None, 0.0
        self._loss_sum.zero_()

    @property
    def _was_looked_at(self) -> bool:
        """Whether any step of the epoch was looked at closely, if only until an interruption."""
        seen = (seen for seen in self.at.observations if seen.epoch == self.at.epoch)
        return any(seen.steps or seen.reason == INTERRUPTED for seen in seen)

    def _timed_train_epoch(self) -> PhaseTimes:
        """Run the epoch's train phase, on top of what ran of it before an interruption.

        Within the phase its times do not add up yet, so `self.at` has none: a state saved there is one of step 0.
        """
        carried, self.at.times = self.at.times, None
        times: PhaseTimes | None = None
        try:
            with self._setting.log.phase("train", self.at.epoch, carried) as times:
                self._train_epoch()
        finally:
            self.at.times = times
        return times

    def _train_epoch(self) -> None:
        """Run the epoch's steps that are not yet done."""
        at = self.at
        if at.step == 0:
            self.save()
            at.draw_ns = 0
        started_ns = perf_counter_ns()
        windows = self._draw(self._train, "train", at.epoch)
        at.draw_ns += perf_counter_ns() - started_ns  # drawn once more after an interruption
        steps, count = self.epoch_steps, self._epoch_windows
        if self._measured is not None:
            self._counted_steps(itertools.islice(self._measured, steps - at.step), count)
            return
        left = windows.select(slice(at.step * self._config.batch_size, count))
        with closing(self._batches(self._train, left)) as batches:
            if self._setting.observer is not None and is_observed(at.epoch) and at.step == 0:
                self._observe(batches, steps, count)
            self._counted_steps(batches, count, saving=True)

    def _observe(self, batches: Iterator[Batch], most_steps: int, count: int) -> None:
        """Look closely at the epoch's first steps; of the traces so far, keep an early, a middle and a late one."""
        observer, at = self._setting.observer, self.at
        assert observer is not None  # noqa: S101 - `_epoch` asked
        try:
            seen = observer.observe(
                lambda: self._counted_steps(itertools.islice(batches, 1), count), at.epoch, most_steps, self._rehearsal
            )
        except InterruptedRunError:
            if at.step:  # else the epoch is looked at again
                at.observations.append(Observation(epoch=at.epoch, reason=INTERRUPTED))
            raise
        at.observations = observer.thinned([*at.observations, seen], KEPT_TRACES)

    @property
    def _rehearsal(self) -> Rehearsal:
        return Rehearsal(self._config.batch_size, self._rehearse)

    def _rehearse(self, windows: int) -> None:
        """Compute the gradient of so many windows as a step does, and drop it."""
        drawn = self._draw(self._train, "train", 0).select(slice(windows))
        with closing(self._batches(self._train, drawn)) as batches:
            for batch in batches:
                backpropagate(self._batch_loss(batch, torch.zeros_like(self._loss_sum), windows, self._parallel))
        self.optimizer.zero_grad()

    def _counted_steps(self, batches: Iterator[Batch], count: int, *, saving: bool = False) -> None:
        """Take a step on each of *batches* of an epoch of *count* windows; any can be the last.

        With *saving*, the state is saved every so often: not where they are looked at closely, or few are measured.
        """
        at = self.at
        started_ns = perf_counter_ns()
        for batch in batches:
            size = min(self._config.batch_size, count - at.step * self._config.batch_size)
            self._step(batch, self._loss_sum, size)
            with stage("patching"):
                del batch  # or it would be in memory beside the next one, and be given back in no stage
            at.step += 1
            if self._config.measured_steps is not None:
                at.step_ns.append(perf_counter_ns() - started_ns)
                started_ns += at.step_ns[-1]
            self._setting.reporter.advance(size)
            self._check()
            if saving and self._save_is_due:
                self._save_within()
                started_ns = perf_counter_ns()

    def _step(self, batch: Batch, total: Tensor, size: int) -> None:
        """Take one optimizer step; add the losses before it of the batch's windows to *total*.

        Args:
            batch: this rank's part of the windows.
            total: of the losses.
            size: windows of all ranks' parts.

        """
        loss = self._batch_loss(batch, total, size, self._parallel)
        backpropagate(loss)
        with stage("loss"):
            del loss  # and with it what autograd kept of the step
        with stage("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def _batch_loss(self, batch: Batch, total: Tensor, size: int, model: nn.Module) -> Tensor:
        """Return the loss to step by: the mean of the batch's *size* windows, of which this rank knows its part.

        Add the losses of the part to *total*.
        """
        prediction_bp = model(batch.context_bkp, batch.positions_bt)
        with stage("loss") as mark:
            loss = self._loss(mark.input(prediction_bp), batch.target_bp)
            total += loss.detach().double() * self._ranks.part(size)
            return mark.output(loss if self._ranks.size == 1 else loss * self._ranks.weight(size))

    @torch.no_grad()
    def _validate(self) -> float:
        """Return the mean loss of the validation windows, or of as many as steps are measured.

        Before the measured steps come as many as a loader fetches ahead.
        """
        batch_size, started_ns = self._config.batch_size, perf_counter_ns()
        with stage("loss"):
            loss_sum = torch.zeros_like(self._loss_sum)
        with stage("patching"):
            windows = self._validation_windows.select(slice(self.validation_steps * batch_size))
        count = len(windows.image_b)
        number = 0
        with closing(self._batches(self._validation, windows)) as batches:
            for batch in batches:  # not by `enumerate`, which would keep each batch until the next one is there
                self._batch_loss(batch, loss_sum, min(batch_size, count - number * batch_size), self.model)
                with stage("patching"):
                    del batch
                number += 1
                if number == self._validation.fetched_ahead:
                    self.at.validation_lead_ns = perf_counter_ns() - started_ns
                self._setting.reporter.advance(1)
                self._check()
        with stage("loss"):
            return self._ranks.total(loss_sum) / count

    def _draw(self, images: Images, *purpose: str | int) -> Windows:
        """Draw an epoch's windows, in shuffled order; every pipeline takes them as they come."""
        grid, side, per_image = images.form.grid, images.form.window_side, self._config.windows_per_image
        with stage("patching"):
            return draw_windows(len(images), per_image, grid, side, generator_for(self._seed, "windows", *purpose))

    def _batches(self, images: Images, windows: Windows) -> Generator[Batch, None, None]:
        """Cut this rank's part of *windows* out of *images*, batch by batch."""
        with stage("patching"):
            part = self._ranks.share(windows, self._config.batch_size)
        with closing(images.batches(part, self._config.batch_size // self._ranks.size)) as deliveries:
            yield from iter(lambda: self._next(deliveries), None)  # which keeps no batch in memory that is done with

    def _next(self, deliveries: Iterator[Loaded]) -> Batch | None:
        """Cut the next batch, if there is one; what it was cut out of is given back in the stage that cuts."""
        loaded = next(deliveries, None)
        if loaded is None:
            return None
        batch = self._pipeline.cut(loaded)
        with stage("patching"):
            del loaded
        return batch

    def _stopping_rule(self) -> StoppedBy | None:
        if self._config.measured_steps is not None:
            return "measured_steps"
        if self.at.epoch - self.at.best_epoch >= self._config.patience:
            return "patience"
        return "max_epochs" if self.at.epoch >= self._config.max_epochs else None

    def _refuse_infinite_state(self) -> None:
        """Stop a training whose state is not worth saving; see `_refuse_infinite`."""
        weights = (weight.sum().item() for weight in self.model.parameters())
        self._refuse_infinite(self._ranks.total(self._loss_sum), *weights)

    def _refuse_infinite(self, *numbers: float) -> None:
        """Stop a training that has lost its way.

        Raises:
            DivergedError: one of *numbers* is NaN or infinite.

        """
        if not all(math.isfinite(number) for number in numbers):
            message = (
                f"the loss became NaN or infinite in epoch {self.at.epoch}; the checkpoints of the epochs before "
                "it are kept; a lower training.learning_rate may help"
            )
            raise DivergedError(message)

    def _tell(self, row: EpochRow) -> None:
        text = f"epoch {row.epoch}: train {row.train_loss:.5f}, validation {row.validation_loss:.5f}"
        best = " (best)" if row.is_best else f" (best {self.at.best_validation_loss:.5f} in epoch {self.at.best_epoch})"
        rate = f", {row.windows / row.wall_s:,.0f} windows/s"
        self._setting.reporter.milestone(
            f"{self._setting.cell}: {text}{best}{rate}", last=self.at.stopped_by is not None
        )
