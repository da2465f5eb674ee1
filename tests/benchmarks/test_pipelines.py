"""The benchmark of pipelines, at a size where its numbers mean nothing but every part runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.pipelines.table import PIPELINES
from models.transformer import ModelConfig
from tests.benchmarks import pipelines, speed
from tests.benchmarks.extent import Extent, real_images
from tests.benchmarks.growth import fitted, slope
from tests.benchmarks.pipelines import PARTS, main
from tests.benchmarks.speed import necessary_flops
from tests.benchmarks.tables import SECTIONS, page
from tests.benchmarks.work import training_windows, work

SMALL = ModelConfig(width=16, depth=1, heads=2, feed_forward=16)
TINY = Extent(
    model=SMALL,
    side=112,
    batch=2,
    step_rounds=2,
    step_limit_s=0.1,
    image_limit_s=0.1,
    turn_batch=2,
    turn_limit_s=0.1,
    epoch_steps=1,
    agreement_steps=3,
    agreement_side=112,
    grown=SMALL,
    grown_rounds=1,
    grown_batches=(1, 2),
    grown_sides=(112, 128),
    grown_counts=(1, 2),
    loaded_counts=(1, 2),
    scored_counts=(2, 4),
    scored_sides=(32, 64),
    scored_images=2,
    scores_limit_s=0.1,
    growth_limit_s=0.1,
)


@pytest.fixture(scope="module")
def measured(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return what the whole command writes: the JSON and the page."""
    folder = tmp_path_factory.mktemp("benchmark")
    images = sorted((generated / "weave" / "train" / "good").glob("*.png"))
    out, text = folder / "new" / "found.json", folder / "page.md"
    main(["--out", str(out), "--page", str(text)], TINY._replace(categories={"weave": images}))
    return json.loads(out.read_text()), text.read_text()


@pytest.mark.slow
def test_every_part_runs_and_has_its_place_in_the_page(measured: tuple[dict[str, Any], str]) -> None:
    found, text = measured
    assert list(found) == list(PARTS) == list(SECTIONS)
    assert not [part for part in found if "left_out" in found[part]]
    assert [title for title, _ in SECTIONS.values()] == [
        line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")
    ]
    assert page(found) == text
    assert "nan" not in text


@pytest.mark.slow
def test_both_pipelines_agree_there_and_neither_times_nothing(measured: tuple[dict[str, Any], str]) -> None:
    found, _ = measured
    for name in ("msa", "mlsa"):
        assert found["agreement"][name]["losses_differ_by_at_most"] < 1e-5
        assert found["agreement"][name]["reconstructions_differ_by_at_most"] < 1e-5
        assert found["agreement"][name]["first_loss"] != found["agreement"][name]["last_loss"]
        for pipeline, stages_s in found["pipelines"][name]["stages_s"].items():
            assert stages_s["wall"] == pytest.approx(
                sum(time_s for stage, time_s in stages_s.items() if stage not in {"wall", "loading busy"}), rel=0.5
            )
            assert (stages_s["loading busy"] > 0) == (pipeline == "thesis")  # the other has decoded before
        for precision in ("float32", "bfloat16"):
            assert 0 < found["exposed"][f"weave {name} {precision}"]["share"] < 1


@pytest.mark.slow
def test_growth_is_measured_of_both_pipelines_in_every_direction(measured: tuple[dict[str, Any], str]) -> None:
    growth = {what: each for what, each in measured[0]["growth"].items() if " over " in what}
    assert {what.removeprefix("msa ").removeprefix("mlsa ") for what in growth} == {
        *(f"{what} over {size}" for what in ("step", "reconstruction") for size in ("batch", "side")),
        *(f"{what} over images" for what in ("step", "reconstruction")),
        *(f"loading over {size}" for size in ("batch", "side", "images")),
        *(f"scores over {size}" for size in ("side", "images")),
    }
    for what in ("msa step over images", "loading over images"):
        assert all(found > 2**20 for found in growth[what]["thesis"]["children_bytes"])
        assert "children_bytes" not in growth[what]["fast"]
    assert measured[0]["memory"]["children_bytes"] > 2**20
    assert all(set(each) == {"thesis", "fast"} for what, each in growth.items() if not what.startswith("scores"))


def test_what_was_measured_is_kept_and_on_request_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for part in PARTS:
        monkeypatch.setitem(
            PARTS, part, lambda _, part=part: calls.append(part) or {"left_out": f"as {part} of a test"}
        )
    out = tmp_path / "found.json"

    def interrupted(_: Extent) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(PARTS, "exposed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(["--out", str(out)])
    assert calls == ["step", "image"] == list(json.loads(out.read_text()))
    main(["--out", str(out), "--resume"])
    assert calls == list(PARTS) == list(json.loads(out.read_text()))
    main(["--out", str(out), "--part", "image"])
    assert calls == [*PARTS, "image"]
    monkeypatch.setattr(pipelines, "machine", lambda: {"version": "another"})
    main(["--out", str(out), "--resume", "--part", "step"])
    assert calls == [*PARTS, "image", "step"]


def test_without_real_images_what_needs_them_says_so() -> None:
    assert real_images(None) == {}
    for part in ("exposed", "pipelines"):
        found = PARTS[part](TINY)
        assert "BENCH_TEST_DATA" in page({part: {"machine": pipelines.machine(), "took_s": 0, **found}})


@pytest.mark.parametrize("part", ["step", "exposed"])
def test_what_is_of_the_fast_pipeline_alone_keeps_memory_as_it_does(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        inside.append("begun")
        yield
        inside.append("ended")

    def multiplied(*_: Any) -> None:
        assert inside == ["begun"]

    monkeypatch.setitem(PIPELINES, "fast", PIPELINES["fast"]._replace(memory=noted))
    monkeypatch.setattr(speed, "_multiply", multiplied)
    PARTS[part](TINY)
    assert inside == ["begun", "ended"]


@pytest.mark.data
def test_real_images_are_found_by_category(real_data: Path) -> None:
    found = real_images(str(real_data))
    assert set(found) >= {"bottle", "grid"}
    assert all(paths and all(path.suffix == ".png" for path in paths) for paths in found.values())


@pytest.mark.parametrize(("name", "attention"), [("msa", 2 * 2 * 49 * 49 * 512), ("mlsa", 2 * 2 * 49 * 64 * 512)])
def test_necessary_flops_are_those_of_the_matrix_products(name: str, attention: int) -> None:
    """Linear attention's normalizer, a product of a matrix and a vector for each head, is a thousandth of the rest."""
    projections = 2 * 49 * (4 * 512 * 512 + 2 * 512 * 2048)
    forward = 13 * (projections + attention) + 2 * 512 * 768
    embedding = 2 * 48 * 768 * 512
    found = necessary_flops(name, ModelConfig(), 64)
    assert found == pytest.approx(64 * (3 * forward + 2 * embedding), rel=1e-3)
    assert found >= 64 * (3 * forward + 2 * embedding)


def test_a_steps_own_products_are_done_again_and_counted() -> None:
    trained, loaded = work("fast", "msa", SMALL, 112), training_windows(2, 112)
    products, flops = speed.own_products(trained, loaded)
    linear = [product for product in products if 16 in {*product().shape, product.args[-1].shape[-2]}]
    assert len(linear) == 3 * 8 - 1  # forward, gradients of weights and of inputs; of the pixels none
    projections, embedding, head = 2 * 49 * 6 * 16 * 16, 2 * 48 * 768 * 16, 2 * 16 * 768
    of_the_loss = sum(
        2 * product().numel() * product.args[-1].shape[-2] for product in products if product not in linear
    )
    assert flops - of_the_loss == 2 * (3 * (projections + head) + 2 * embedding)


def test_the_slope_is_the_exponent() -> None:
    assert slope([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)


def test_a_fit_says_how_far_single_rounds_are_apart_and_fits_no_memory_it_does_not_know() -> None:
    found = fitted({1: [1.0, 1.0, 1.0], 4: [4.0, 16.0, 8.0]}, [100, 200])
    assert found["time_slopes"] == pytest.approx([1, 2])
    assert (found["time_slope"], found["peak_slope"]) == pytest.approx((1.5, 0.5))
    assert fitted({1: [1.0], 4: [4.0]}, [None, 200])["peak_slope"] is None
