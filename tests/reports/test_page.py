"""The page as text: self-contained, escaped, the same for the same run, and silent about nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from report_runs import NO_ENERGY, Build, Spec, metered, pair, write_telemetry

from profiles.record import SampleMap
from reports.commands import write_report
from reports.page import samples
from reports.source.load import read_run

HOSTILE = (
    "<script>alert(1)</script>",
    "\"' onload=alert(1) x='",
    "\u202egnp.evil",
    "two\nlines\ttab",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{1}{2}$ @0@ --> ]]>",
    "漢字 אב 🦊",
    "x" * 300,
)


def page_of(run: Path) -> str:
    return write_report(read_run(run), run / "report").read_text(encoding="utf-8")


class Audit(HTMLParser):
    """Collects what a browser would act on, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag, and those of its attributes that act."""
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        self.text.append(data)


def audit(page: str) -> Audit:
    found = Audit()
    found.feed(page)
    return found


def test_the_page_needs_nothing_but_itself(build: Build) -> None:
    page = page_of(build(*pair("carpet", 100.0, 107.0)))
    found = audit(page)
    assert found.references
    assert all(reference.startswith(("#", "data:")) for reference in found.references)
    assert not re.search(r"@import|url\((?!#)", page)
    assert found.tags.count("script") == 1


def test_every_id_is_unique_and_every_reference_is_met(build: Build) -> None:
    page = page_of(build(*pair("carpet", 100.0, 107.0), *pair("grid", 100.0, 99.0, pipeline="thesis")))
    found = audit(page)
    assert len(found.ids) == len(set(found.ids))
    wanted = {ref[1:] for ref in found.references if ref.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted <= set(found.ids)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_shows_as_text(build: Build, name: str) -> None:
    safe = name.replace("/", "|")[:60].replace("\n", " ")
    sample = SampleMap(image=name, defect=name, file="maps/x.png")
    run = build(
        Spec(category=safe, caveats=(name,), samples=(sample,)),
        Spec(category=safe, model="mlsa"),
        Spec(seed=7, status="failed", error=name),
        title=name,
    )
    (run / "config.toml").write_text(f"# {name}\n", encoding="utf-8")
    page = page_of(run)
    found = audit(page)
    plain = audit(page_of(build(*pair("carpet", 1.0, 1.0), Spec(seed=7, status="failed", error="x"), name="plain")))
    assert found.handlers == []
    assert sorted(set(found.tags)) == sorted(set(plain.tags))
    assert found.tags.count("script") == 1
    assert "\u202e" not in page
    shown = name.replace("\n", "\\n").replace("\t", "\\t").replace("\u202e", "\\u202e")
    assert shown in "".join(found.text)


def test_no_data_enters_the_script(build: Build) -> None:
    scripts = [
        re.findall(r"<script>(.*?)</script>", page_of(build(Spec(caveats=(text,)), name=name)), re.DOTALL)
        for name, text in (("a", "</script>one"), ("b", "two"))
    ]
    assert scripts[0] == scripts[1]


def test_the_same_run_gives_the_same_page(build: Build) -> None:
    run = build(*pair("carpet", 100.0, 107.0))
    assert page_of(run) == page_of(run)


def test_sections_stand_in_their_order(build: Build) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page_of(build(*pair("carpet", 100.0, 107.0))))
    assert headings == [
        "The answer",
        "Cells",
        "Accuracy",
        "Time and memory",
        "Stages",
        "Arithmetic",
        "Thesis pipeline against fast",
        "What if a stage were free?",
        "Can the times be trusted?",
        "Energy",
        "Power and utilisation over time",
        "Loss curves",
        "What accuracy cost",
        "Sample maps",
        "Claims",
        "Environment",
        "Caveats",
        "What was not measured",
    ]


UNMEASURED = {"checks", "machine", "capabilities", "packages"}
"""Tables that hold no number of this run."""


def test_every_table_of_numbers_says_under_what_they_were_measured(build: Build) -> None:
    specs = [metered(spec) for spec in pair("carpet", 100.0, 107.0)]
    run = build(*specs, replace(specs[0], pipeline="thesis"))
    write_telemetry(run, specs[0])
    tables = re.findall(r'<table id="([^"]+)">\s*<caption>(.*?)</caption>', page_of(run), re.DOTALL)
    captions = {ident: caption for ident, caption in tables if ident not in UNMEASURED}
    assert set(captions) > {"matches", "cells", "pipelines", "roofline", "claims", "losses-table", "powers"}
    lacking = {
        ident: [
            word for word in ("device cuda:0", "float32", "torch 2.13.0", "commit 0123456789ab") if word not in caption
        ]
        for ident, caption in captions.items()
    }
    assert {ident: words for ident, words in lacking.items() if words} == {}


def test_a_partial_run_says_what_is_missing_and_why(build: Build) -> None:
    failed = Spec(seed=1, status="failed", error="CUDA out of memory")
    page = page_of(build(Spec(), failed, Spec(seed=2, status="pending"), status="running"))
    text = "".join(audit(page).text)
    assert "This is not a whole run." in text
    gaps = text[text.index("What was not measured", text.index("Caveats\n")) :]
    assert "carpet/msa-fast/seed1: failed. CUDA out of memory" in gaps
    assert "carpet/msa-fast/seed2: pending." in gaps
    assert f"energy per epoch (1 cell): {NO_ENERGY}" in gaps
    assert "Stages of the calibration phase: no record holds them." in gaps
    assert "Unavailable on this machine: energy counter (no NVIDIA driver on this machine)." in gaps


def test_a_whole_run_has_no_banner(build: Build) -> None:
    assert "This is not a whole run" not in page_of(build(Spec()))


def test_every_caveat_is_printed_once_with_its_cells(build: Build) -> None:
    page = page_of(build(Spec(caveats=("A", "B.")), Spec(seed=1, caveats=("B.", "C <b>"))))
    assert page.count("<bdi>B.</bdi>") == 1
    assert "all 2 finished cells" in page
    assert "C &lt;b&gt;" in page


def test_the_baseline_and_the_published_hardware_are_named(build: Build) -> None:
    text = "".join(audit(page_of(build(*pair("carpet", 100.0, 107.0)))).text)
    assert "baseline MSA" in text
    assert "RTX 2080 Ti" in text


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("maps/absent.png", "maps/absent.png is missing."),
        ("../../../../../../etc/passwd", "is no name of a file in maps/."),
        ("/etc/passwd", "is no name of a file in maps/."),
        ("maps/torn.png", "maps/torn.png is no readable PNG."),
    ],
)
def test_a_picture_that_cannot_be_shown_is_told(build: Build, file: str, told: str) -> None:
    run = build(Spec(samples=(SampleMap(image="0", defect="good", file="maps/whole.png"),)))
    folder = run / "cells" / Spec().name
    whole = (folder / "maps" / "whole.png").read_bytes()
    (folder / "maps" / "torn.png").write_bytes(whole[: len(whole) // 2])
    text = (folder / "record.json").read_text(encoding="utf-8").replace("maps/whole.png", file)
    (folder / "record.json").write_text(text, encoding="utf-8")
    (folder / "maps" / "absent.png").unlink(missing_ok=True)
    page = page_of(run)
    assert told in "".join(audit(page).text)
    assert "<img" not in page


def test_few_pictures_of_many_are_shown_of_different_defects(build: Build) -> None:
    names = [("good", "0"), ("good", "1"), ("hole", "2"), ("cut", "3"), ("cut", "4")]
    samples = tuple(SampleMap(image=i, defect=d, file=f"maps/{d}_{i}.png") for d, i in names)
    page = page_of(build(Spec(samples=samples)))
    assert re.findall(r"anomaly map of (\d), (\w+)", page) == [("0", "good"), ("2", "hole"), ("3", "cut")]
    assert "3 of 5 pictures shown" in page


def test_losses_that_are_not_numbers_are_left_out_and_said(build: Build) -> None:
    run = build(Spec())
    path = run / "cells" / Spec().name / "epochs.csv"
    path.write_text(path.read_text(encoding="utf-8") + "7,nan,0.1,1.0,10,false,false\n", encoding="utf-8")
    assert "1 epoch without a positive, finite loss not drawn." in page_of(run)


def test_losses_that_diverged_are_still_reported(build: Build) -> None:
    run = build(Spec())
    path = run / "cells" / Spec().name / "epochs.csv"
    path.write_text(path.read_text(encoding="utf-8") + "7,3.2e31,4.5e300,1.0,10,false,false\n", encoding="utf-8")
    assert "4.500e300" in page_of(run)


def test_a_record_without_stages_samples_and_metrics_still_makes_a_page(build: Build) -> None:
    run = build(Spec())
    folder = run / "cells" / Spec().name
    record = read_run(run).records[0].model_copy(update={"stage_totals": (), "metrics": (), "samples": ()})
    (folder / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
    (folder / "epochs.csv").unlink()
    page = page_of(run)
    assert "No record holds stages of the training phase." in page
    assert "No cell has an epoch with a positive, finite loss." in page
    assert "epochs.csv is missing." in page


def test_the_worst_and_the_best_picture_come_first_and_say_so(build: Build) -> None:
    found = [("a", "sample", None), ("b", "worst", 51.26), ("c", "best", 99.5), ("d", "sample", 70.0)]
    samples = tuple(
        SampleMap(image=i, defect="cut", file=f"maps/{i}.png", role=role, segmentation_auroc=auroc)  # type: ignore[arg-type]
        for i, role, auroc in found
    )
    page = page_of(build(Spec(samples=samples)))
    assert re.findall(r"anomaly map of (\w), cut", page) == ["b", "c", "a"]
    assert "worst, AUROC of its pixels 51.26\u00a0%" in page
    assert "best, AUROC of its pixels 99.50\u00a0%" in page


def test_many_pictures_share_the_bytes_of_few(build: Build) -> None:
    specs = [Spec(seed=seed) for seed in range(40)]
    run = build(*specs)
    for spec in specs:
        noise = Image.effect_noise((2048, 512), 90.0)
        noise.save(run / "cells" / spec.name / "maps" / "hole_000.png")
    shown = samples.strips(read_run(run).cells)
    assert sum(len(picture.url) for strip in shown for picture in strip.samples) < 1.4 * samples.PICTURE_BYTES
    assert len(shown) == 40


def test_cells_over_time_are_drawn_and_those_without_samples_named(build: Build) -> None:
    run = build(Spec(), Spec(seed=1), Spec(seed=2))
    write_telemetry(run, Spec())
    (write_telemetry(run, Spec(seed=2)) / "telemetry.csv").write_text("time_s,device\nx,y\n", encoding="utf-8")
    page = page_of(run)
    assert page.count("Power and utilisation of carpet/msa-fast/seed0 over time</title>") == 1
    assert "Not shown: <bdi>telemetry.csv is missing (1 cell)</bdi>." in page
    assert "telemetry.csv or energy.csv is damaged (ValueError) (1 cell)" in page


def test_accuracy_is_set_against_time_and_the_lack_of_energy_is_said(build: Build) -> None:
    page = page_of(build(*pair("carpet", 100.0, 107.0)))
    assert "Segmentation AUROC against the time of the training" in page
    assert "Against energy: not measured" in page
    assert "carpet, MLSA, fast, seed 0: 80.00 % after 10.70 min" in page
