"""The small parts of the harness."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from harness import checkpoint, progress
from harness.categories import kind_of, mvtec_ad
from harness.cost import forward_flops
from harness.dataset import LabelledImage
from harness.directory import RunDirectory, write_atomically
from harness.evaluation import Evaluated
from harness.pictures import save_samples
from harness.progress import Reporter, duration
from harness.samples import Samples, spread_over_defects
from harness.seeding import generator_for, seed_for
from models.transformer import ModelConfig
from profiles.errors import RunDirectoryError


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (273_600, "3 d 04 h"),
])  # fmt: skip
def test_a_duration_is_written_for_a_person(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Time:
    """A clock for progress."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_in_a_log_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    time, log = Time(), StringIO()
    monkeypatch.setattr(progress, "monotonic", time)
    reporter = Reporter(Console(file=log, soft_wrap=True))
    reporter.begin("epoch 1", 100, "windows")
    for _ in range(40):
        time.now += 0.5
        reporter.advance(2)
    assert log.getvalue().splitlines() == [
        "epoch 1: 40/100 windows, 4.0 windows/s, 15 s left",
        "epoch 1: 80/100 windows, 4.0 windows/s, 5 s left",
    ]
    reporter.milestone("epoch 1 done", last=False)
    reporter.milestone("epoch 2 done", last=False)  # too soon
    reporter.milestone("the end", last=True)
    assert log.getvalue().splitlines()[2:] == ["epoch 1 done", "the end"]


def test_progress_on_a_terminal_is_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    time, screen = Time(), StringIO()
    monkeypatch.setattr(progress, "monotonic", time)
    reporter = Reporter(Console(file=screen, force_terminal=True, width=120, color_system=None))
    reporter.begin("epoch 1", 100, "windows")
    time.now += 1
    reporter.advance(20)
    reporter.end()
    assert "20/100" in screen.getvalue()
    assert "20 windows/s" in screen.getvalue()


def test_every_purpose_has_its_own_randomness() -> None:
    assert seed_for(0, "windows", 1) == seed_for(0, "windows", 1)
    seeds = [seed_for(seed, *purpose) for seed in (0, 1) for purpose in (("a",), ("a", 1), ("b", 1))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.rand(1, generator=generator_for(0, "a")) == torch.rand(1, generator=generator_for(0, "a"))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"model": {"weight": torch.arange(3)}, "progress": {"epoch": 2}})
    saved = checkpoint.load_last(tmp_path, torch.device("cpu"))
    assert saved is not None
    assert torch.equal(saved.state["model"]["weight"], torch.arange(3))
    assert saved.damaged is None
    assert checkpoint.load_last(tmp_path / "none", torch.device("cpu")) is None


class Evil:
    """What a hostile checkpoint could hold."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("owned",)


@pytest.mark.parametrize("damage", ["truncated", "junk", "pickle"])
def test_a_damaged_or_hostile_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    if damage == "pickle":
        torch.save({"model": Evil()}, path)
    else:
        checkpoint.save(path, {"weight": torch.zeros(1000)})
        path.write_bytes(path.read_bytes()[:2000] if damage == "truncated" else b"junk")
    with pytest.raises(RunDirectoryError, match=r"last\.pt: got a damaged checkpoint"):
        checkpoint.load(path, torch.device("cpu"))


def test_samples_take_the_defects_in_turn() -> None:
    images = [LabelledImage(Path(f"{defect}{i}.png"), defect, None) for defect in "abc" for i in range(3)]
    assert [images[i].path.name for i in spread_over_defects(images, 5)] == [
        "a0.png", "b0.png", "c0.png", "a1.png", "b1.png",
    ]  # fmt: skip
    assert spread_over_defects(images, 0) == []
    assert sorted(spread_over_defects(images, 100)) == list(range(9))


def test_the_worst_and_the_best_image_are_kept_first(tmp_path: Path) -> None:
    masks = np.zeros((5, 8, 8), dtype=bool)
    masks[1:, :2] = True
    maps = np.zeros((5, 8, 8), dtype=np.float32)
    for image, part in enumerate((0.0, 0.5, 1.0, 0.0, 0.7)):
        maps[image][masks[1]] = np.linspace(part - 0.5, part, 16)
    images = []
    for place, defect in enumerate(("good", "cut", "cut", "hole", "hole")):
        path = tmp_path / f"{place}.png"
        Image.new("RGB", (8, 8)).save(path)
        images.append(LabelledImage(path, defect, None if defect == "good" else path))
    samples, most = Samples(images, 1), 0
    for index, (map_hw, mask_hw) in enumerate(zip(maps, masks, strict=True)):
        samples.rate(index, map_hw, mask_hw)
        if samples.keeps(index):
            samples.keep(
                index, torch.full((3, 8, 8), index, dtype=torch.uint8), torch.full((3, 8, 8), 2.0 * index / 255)
            )
        most = max(most, len(samples.pictures))
    assert most == 3 == len(samples.pictures)
    found = save_samples(Evaluated(tuple(images), maps, masks, samples, maps.max(axis=(1, 2))), 3, tmp_path)
    assert [(sample.image, sample.role) for sample in found] == [
        ("hole/3.png", "worst"), ("cut/2.png", "best"), ("good/0.png", "sample"),
    ]  # fmt: skip
    assert found[0].segmentation_auroc is not None
    assert found[0].segmentation_auroc < 10.0
    assert (found[1].segmentation_auroc, found[2].segmentation_auroc) == (100.0, None)
    shown_hwc = np.asarray(Image.open(tmp_path / "hole-3.png"))
    assert (shown_hwc[0, 0, 0], shown_hwc[0, -1 - 8 - 4, 0]) == (3, 6)  # image and reconstruction


def test_the_published_facts_are_those_of_fifteen_categories() -> None:
    facts = mvtec_ad()
    assert len(facts) == 15
    assert sum(each.train_good for each in facts.values()) == 3629
    assert sum(each.test_good + each.test_defective for each in facts.values()) == 1725
    assert sum(each.kind == "texture" for each in facts.values()) == 5
    assert (kind_of("carpet"), kind_of("bottle"), kind_of("weave"), kind_of("chip"), kind_of("mine")) == (
        "texture", "object", "texture", "object", "other",
    )  # fmt: skip


# D, H, E, F, P and T of the model below; 12 tokens for a quarter of T
D, E, F, P, T = 64, 16, 128, 768, 49


@pytest.mark.parametrize(("name", "attention"), [
    ("msa", T * 8 * D**2 + 4 * T**2 * D),
    ("mlsa", T * 8 * D**2 + 4 * T * E * D + 2 * T * D),
    ("intra", T * 16 * D**2 + 3 * T**2 * D),
    ("linformer", T * 8 * D**2 + 4 * 12 * T * D + 4 * T * 12 * D),
    ("fastformer", T * 6 * D**2),
])  # fmt: skip
def test_the_operations_of_a_window_are_those_of_its_matrix_products(name: str, attention: int) -> None:
    config = ModelConfig(width=D, depth=2, heads=D // E, feed_forward=F, attention_backend="native")
    # the embedding reads 48 of 49 patches and the head paints the 49th, so together they are 49 products
    assert forward_flops(name, config) == 2 * (attention + T * 4 * D * F) + T * 2 * P * D
    assert forward_flops(name, config.model_copy(update={"attention_backend": "fast-transformers"})) == forward_flops(
        name, config
    )


def test_events_are_one_json_object_a_line(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.log("run_start", run="a\nb")
    directory.log("run_stop", run="a\nb", status="done")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["run_start", "run_stop"]
    assert events[0]["monotonic_ns"] <= events[1]["monotonic_ns"]
