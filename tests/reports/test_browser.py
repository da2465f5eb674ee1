"""The page in a browser: it works there, asks nothing of the network and fits a telephone."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_runs import HOSTILE_CATEGORY, Build, Spec, metered, pair, renamed, write_telemetry
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from reports.commands import write_report
from reports.source.load import read_run
from reports.words.format import visible

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MISSING = [str(path) for path in (CHROMIUM, DRIVER) if not path.is_file()]
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)} on this machine"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = Chrome(options=options, service=Service(str(DRIVER)))
    yield found
    found.quit()


@pytest.fixture
def page(browser: Chrome, build: Build) -> Chrome:
    """Open a report of eleven cells, one of them failed, with a name that tries to run."""
    specs = [metered(spec) for i in range(4) for spec in pair(f"c{i}", 100.0 + 7 * i, 131.0 - 9 * i)]
    evil = metered(Spec("<img src=x onerror=alert(1)>", caveats=("<script>document.title='owned'</script>",)))
    slow = metered(Spec(category="c0", model="msa", pipeline="thesis", time=410.0))
    run = build(*specs, slow, evil, Spec(seed=9, status="failed", error="out of memory"))
    for spec in (*specs[:2], slow):
        write_telemetry(run, spec)
    open_at(browser, write_report(read_run(run), run / "report"), 1440)
    return browser


def open_at(browser: Chrome, path: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())


def requests(page: Chrome) -> list[str]:
    """Return the addresses that the report asked for; the browser's own new-tab page asks for others."""
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent if one["documentURL"] == page.current_url]


def heading(page: Chrome, table: str, place: int) -> WebElement:
    return page.find_elements(By.CSS_SELECTOR, f"#{table} thead th")[place]


def column(page: Chrome, table: str, place: int) -> list[str]:
    rows = page.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.find_elements(By.TAG_NAME, "td")[place].text.split("\n")[0] for row in rows if row.is_displayed()]


def test_the_page_opens_without_an_error_and_without_a_request(page: Chrome) -> None:
    assert page.get_log("browser") == []
    asked = requests(page)
    assert page.current_url in asked
    assert [url for url in asked if url != page.current_url and not url.startswith("data:")] == []
    assert "owned" not in page.title


def test_every_chart_is_drawn(page: Chrome) -> None:
    charts = page.find_elements(By.CSS_SELECTOR, "svg.chart")
    titles = [chart.find_element(By.TAG_NAME, "title").get_attribute("textContent") or "" for chart in charts]
    found = Counter(re.split(r" of | on | against |, ", title)[0] for title in titles)
    assert found == {
        "Time per epoch": 1,
        "Stages": 1,
        "Roofline": 1,
        "Power and utilisation": 3,
        "Loss": 7,
        "Segmentation AUROC": 2,
    }
    for chart in charts:
        assert chart.size["width"] > 200
        assert chart.size["height"] > 60


def test_clicking_a_heading_sorts_both_ways(page: Chrome) -> None:
    button = heading(page, "timing", 4).find_element(By.TAG_NAME, "button")
    button.click()
    up = [float(text) for text in column(page, "timing", 4)]
    assert heading(page, "timing", 4).get_attribute("aria-sort") == "ascending"
    assert up == sorted(up)
    button.click()
    assert [float(text) for text in column(page, "timing", 4)] == up[::-1]
    assert heading(page, "timing", 4).get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_too(page: Chrome) -> None:
    heading(page, "cells", 1).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    found = column(page, "cells", 1)
    assert heading(page, "cells", 1).get_attribute("aria-sort") == "ascending"
    assert found[0] == "<img src=x onerror=alert(1)>"
    assert found[1:] == sorted(found[1:])


def test_filtering_shows_only_rows_with_every_word(page: Chrome) -> None:
    sheet = page.find_element(By.CSS_SELECTOR, ".sheet:has(#cells)")
    sheet.find_element(By.TAG_NAME, "input").send_keys("C2 mlsa")
    assert column(page, "cells", 1) == ["c2"]
    assert sheet.find_element(By.TAG_NAME, "output").text == "1 of 11 rows"


@pytest.mark.parametrize("ident", ["stages-train", "claims", "pipeline-stages", "closure", "energy-train"])
def test_every_long_table_can_be_filtered_to_nothing_and_back(page: Chrome, ident: str) -> None:
    open_all(page)
    sheet = page.find_element(By.CSS_SELECTOR, f".sheet:has(#{ident})")
    rows = sheet.find_elements(By.CSS_SELECTOR, "tbody tr")
    field = sheet.find_element(By.TAG_NAME, "input")
    field.send_keys("no such word")
    assert not any(row.is_displayed() for row in rows)
    field.clear()
    field.send_keys(" ")
    assert all(row.is_displayed() for row in rows)


def test_what_is_missing_stays_last_whichever_way_a_table_is_sorted(page: Chrome) -> None:
    open_all(page)
    button = heading(page, "stages-train", 8).find_element(By.TAG_NAME, "button")
    for _ in range(2):
        button.click()
        assert column(page, "stages-train", 8)[-1] == "unavailable"


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out_sideways(page: Chrome, width: int) -> None:
    path = Path(page.current_url.removeprefix("file://"))
    open_at(page, path, width)
    open_all(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_words_of_a_chart_can_be_read_on_a_telephone(page: Chrome) -> None:
    open_at(page, Path(page.current_url.removeprefix("file://")), 390)
    sizes = page.execute_script(
        "return [...document.querySelectorAll('svg.chart')].map((chart) => [chart.querySelector('title').textContent,"
        "Math.min(...[...chart.querySelectorAll('text')].map((t) =>"
        "parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b)))])"
    )
    assert [(title, size) for title, size in sizes if size < 8.0] == []


@pytest.mark.parametrize("width", [390, 1440])
def test_a_category_of_300_hostile_characters_is_text_everywhere(browser: Chrome, build: Build, width: int) -> None:
    specs = [metered(spec) for spec in pair("c0", 100.0, 131.0)]
    run = build(*specs)
    for spec in specs:
        write_telemetry(run, spec)
        renamed(run, spec)
    open_at(browser, write_report(read_run(run), run / "report"), width)
    open_all(browser)
    assert browser.get_log("browser") == []
    assert browser.title == "demo \u00b7 inpainting-bench"
    acting = (
        "return [...document.querySelectorAll('*')].filter((e) => [...e.attributes].some((a) => /^on/i.test(a.name)))"
    )
    assert browser.execute_script(acting) == []
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    text = browser.execute_script("return document.body.innerText")
    assert text.count(visible(HOSTILE_CATEGORY)) > 10
    titles = browser.execute_script("return [...document.querySelectorAll('svg title')].map((t) => t.textContent)")
    assert any(visible(HOSTILE_CATEGORY) in title for title in titles)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert [url for url in requests(browser) if url != browser.current_url and not url.startswith("data:")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_serious_violation(page: Chrome, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    open_at(page, Path(page.current_url.removeprefix("file://")), width)
    open_all(page)
    assert violations(page) == []


def test_axe_finds_what_is_planted(page: Chrome) -> None:
    page.execute_script("document.querySelector('nav').insertAdjacentHTML('beforeend', '<button></button>')")
    assert [line.split(":")[0] for line in violations(page)] == ["button-name"]


def test_on_paper_everything_but_the_points_of_pictures_is_open_and_nothing_scrolls(page: Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    closed = page.find_elements(By.CSS_SELECTOR, "details:not([open], .drawn)")
    shown = page.execute_script(
        "return [...document.querySelectorAll('nav, .filter, .drawn')]"
        ".some((e) => getComputedStyle(e).display !== 'none')"
    )
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((e) => getComputedStyle(e).overflowX)"
    )
    assert (closed, shown, set(boxes)) == ([], False, {"visible"})


def open_all(page: Chrome) -> None:
    page.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")


def violations(page: Chrome) -> list[str]:
    """Return what axe-core finds serious or critical, with the elements it is about."""
    if not AXE.is_file():
        pytest.fail(f"{AXE} is missing: run `make axe`, which needs npm")
    page.execute_script(AXE.read_text(encoding="utf-8"))
    page.set_script_timeout(300)  # a busy machine takes its time over ten thousand elements
    found = page.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run({resultTypes: ['violations']}).then((found) => done(found.violations));"
    )
    return [
        f"{one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
