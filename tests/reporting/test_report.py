"""The report, in a real browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from metabench.cli import main
from metabench.engine.pictures import episode_png
from metabench.records.measured import Declaration, Estimate, Place
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench.specs import PublishedResult

Make = Callable[..., Record]
Report = Callable[..., Path]

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"{{7*7}}'"


@pytest.fixture
def report(tmp_path: Path, make_results: Callable[..., EpisodeResults], monkeypatch: pytest.MonkeyPatch) -> Report:
    """Return a function that stores records, and runs `metabench report` on them."""

    def make(*records: Record, suite: str = "name: small\n", arguments: tuple[str, ...] = ()) -> Path:
        images = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 1, 8, 8)
        picture = episode_png(images, range(5), images, range(5), [1, 1, 2, 3, 4])
        store = Store(tmp_path / "out")
        store.write_text("suite.yaml", suite)
        for record in records:
            if record.primary:
                store.write(record, make_results(record.primary.value, noise=int(record.cell, 16)), picture)
            else:
                store.write(record)
        monkeypatch.setattr(sys, "argv", ["metabench", "report", str(store.path), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return store.path / "report.html"

    return make


@pytest.fixture
def records(make_record: Make) -> list[Record]:
    worst = [{"name": "Greek/alpha", "accuracy": 0.25, "episodes": 8}]
    found = [
        make_record(0.5 + 0.1 * i, algorithm=name, cell=f"{i:016}", worst_classes=worst, parameters=10 ** (i + 1))
        for i, name in enumerate(("low", "middle", "high"))
    ]
    return [
        *found,
        make_record(None, algorithm="broken", cell="0000000000000008"),
        make_record(0.7, algorithm="five", cell="0000000000000009", shot=5),
    ]


def column(browser: webdriver.Chrome, title: str) -> list[str]:
    """Return the cells of a column of the table of all methods, those of hidden rows left out."""
    titles = [heading.text.split(" ▲")[0].split(" ▼")[0] for heading in headings(browser)]
    rows = browser.find_elements(By.CSS_SELECTOR, "#methods tbody tr")
    place = titles.index(title)
    cells = [row.find_elements(By.CSS_SELECTOR, "th, td")[place] for row in rows if row.is_displayed()]
    return [cell.text if place else str(cell.get_attribute("data-value")) for cell in cells]


def headings(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#methods thead th")


def show(browser: webdriver.Chrome, group: str) -> None:
    """Show or hide a group of columns of the table of all methods."""
    browser.find_element(By.CSS_SELECTOR, f"input[data-group={group}]").click()


def switches(browser: webdriver.Chrome) -> list[str]:
    """Return the methods that can be hidden in the plots."""
    script = "return [...document.querySelectorAll('input[data-method]')].map((box) => box.dataset.method)"
    return list(dict.fromkeys(browser.execute_script(script)))


def heading(browser: webdriver.Chrome, title: str) -> WebElement:
    return next(found for found in headings(browser) if found.text.startswith(title))


def test_a_click_sorts_by_numbers_and_a_second_one_the_other_way(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    assert column(browser, "algorithm") == ["high", "middle", "low", "broken", "five"]
    show(browser, "costs")
    button = heading(browser, "params").find_element(By.TAG_NAME, "button")
    button.click()
    assert column(browser, "params") == ["10", "100", "1,000", "1,234", "–"]
    assert heading(browser, "params").get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(browser, "params") == ["1,234", "1,000", "100", "10", "–"], "what has no value stays last"
    assert heading(browser, "params").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_filters(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    field = browser.find_element(By.ID, "filter")
    field.send_keys("1-shot ", "mid")
    assert column(browser, "algorithm") == ["middle"]
    assert browser.find_element(By.ID, "count").text == "1 of 5 shown"
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    assert len(column(browser, "algorithm")) == 5
    field.send_keys(Keys.TAB)
    for _ in range(10):  # the region of the table can be scrolled by keys, so it takes the focus first
        if browser.switch_to.active_element.text == "algorithm":
            break
        browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert column(browser, "algorithm") == ["broken", "five", "high", "low", "middle"]


def test_plots_are_drawn_without_browser_errors(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    assert browser.execute_script("return Bokeh.documents[0].roots().length") == 12, "six plots for each of two tables"
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


def test_methods_are_plotted_against_the_classes_of_their_training(
    report: Report, make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    def trained(i: int, name: str, **subset: int) -> Record:
        inside = ",".join(f"train.{limit}={value}" for limit, value in subset.items())
        identity = {"algorithm": {"name": name}, "subset": subset}
        return make_record(0.5 + 0.05 * i, algorithm=f"{name}[{inside}]", cell=f"{i:016}", identity=identity)

    subsets = [{"classes": classes, "images_per_class": images} for classes in (5, 10) for images in (2, 4)]
    found = [trained(i, "maml", **subset) for i, subset in enumerate(subsets)]
    found += [trained(i + 4, "protonet", classes=classes) for i, classes in enumerate((5, 10))]
    browser = page(report(*found, make_record(0.6, algorithm="all", cell=f"{9:016}")))
    text = browser.find_element(By.TAG_NAME, "main").text
    assert "Accuracy against training classes, ± half its 95 % interval over episodes" in text
    assert "Accuracy against training images of each class" in text
    drawn = browser.execute_script(
        """
        const plots = Bokeh.documents[0].roots().filter((plot) => plot.below[0].axis_label === "training classes");
        const lines = plots[0].renderers.filter((renderer) => renderer.glyph.type === "Line");
        return lines.map((line) => [line.name, [...line.data_source.get("x")]]);
        """
    )
    assert sorted(drawn) == [
        ["maml[train.images_per_class=2]", [5, 10]],
        ["maml[train.images_per_class=4]", [5, 10]],
        ["protonet", [5, 10]],
    ]
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_metrics_with_places_on_a_curve_are_plotted_as_lines(
    report: Report, make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    names = ["accuracy_0", "accuracy_1", "accuracy"]
    places = [Place(curve="accuracy", axis="rounds of adaptation", at=at) for at in range(3)]

    def adapted(i: int, name: str, *shares: float) -> Record:
        estimates = [Estimate(value=share, ci95=0.01, std=0.1, episodes=100) for share in shares]
        return make_record(
            algorithm=name,
            cell=f"{i:016}",
            metrics=dict(zip(names, estimates, strict=True)),
            declarations={
                name: Declaration(title=name, unit="%", scale=100, place=place)
                for name, place in zip(names, places, strict=True)
            },
        )

    browser = page(report(adapted(1, "maml", 0.25, 0.5, 0.75), adapted(2, "random", 0.25, 0.25, 0.375)))
    assert (
        "Accuracy against rounds of adaptation, ± half its 95 % interval over episodes"
        in browser.find_element(By.TAG_NAME, "main").text
    )
    drawn = browser.execute_script(
        """
        const plots = Bokeh.documents[0].roots().filter((plot) => plot.below[0].axis_label === "rounds of adaptation");
        const lines = plots[0].renderers.filter((renderer) => renderer.glyph.type === "Line");
        const rounded = (value) => Math.round(value * 1000) / 1000;
        const points = (line) => ["x", "y"].map((axis) => [...line.data_source.get(axis)].map(rounded));
        return [plots.length, ...lines.map((line) => [line.name, ...points(line)])];
        """
    )
    assert drawn == [1, ["maml", [0, 1, 2], [25, 50, 75]], ["random", [0, 1, 2], [25, 25, 37.5]]]


def test_a_name_that_looks_like_tex_fetches_nothing(
    report: Report, make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    names = ["$$x$$", r"\(x\)", r"\[x\]", "costs $5", "$$$$x$$$$", r"\\(x\\)"]
    found = [
        make_record(0.5 + 0.01 * i, algorithm=name, cell=f"{i:016x}", suite="$$y$$", dataset="$$z$$")
        for i, name in enumerate(names)
    ]
    browser = page(report(*found))
    assert browser.execute_script("return document.querySelectorAll('script[src]').length") == 0
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert set(switches(browser)) == set(names)


def test_the_page_may_fetch_nothing_whatever_it_contains(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    blocked = browser.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.blockedURI));"
        "document.body.append(Object.assign(document.createElement('script'), {src: 'https://example.org/x.js'}));"
    )
    assert blocked == "https://example.org/x.js"


def test_a_phone_scrolls_tables_and_not_the_page(
    report: Report, records: list[Record], make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(
        report(*records, make_record(0.4, algorithm="long" * 20, cell="0000000000000010", backbone="b" * 70))
    )
    browser.execute_script("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 22, 26)")])
def test_page_and_plots_follow_the_colour_scheme(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome], scheme: str, paper: str
) -> None:
    browser = page(report(*records))
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        style = "return getComputedStyle(document.{}).{}"
        assert browser.execute_script(style.format("body", "backgroundColor")) == paper
        ink = browser.execute_script(style.format("documentElement", "getPropertyValue('--ink')"))
        inks = browser.execute_script(
            "return Bokeh.documents[0].all_models && [...Bokeh.documents[0].all_models]"
            ".filter((model) => 'axis_label_text_color' in model).map((model) => model.axis_label_text_color)"
        )
        assert set(inks) == {ink.strip()}
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_hostile_names_are_text_everywhere(
    report: Report, make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    worst = [{"name": HOSTILE, "accuracy": 0.25, "episodes": 8}]
    changes = {
        "dataset": HOSTILE,
        "backbone": HOSTILE,
        "suite": HOSTILE,
        "device": HOSTILE,
        "environment": {"cuda": None, HOSTILE: HOSTILE},
    }
    browser = page(
        report(
            make_record(0.5, algorithm=HOSTILE, cell="0000000000000001", worst_classes=worst, **changes),
            make_record(0.6, algorithm=f"{HOSTILE}2", cell="0000000000000002", **changes),
            make_record(None, algorithm=f"{HOSTILE}3", cell="0000000000000003", **{**changes, "error": HOSTILE}),
            suite=f"name: {HOSTILE}\n",
        )
    )
    assert browser.execute_script("return window.hacked") is None
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert HOSTILE in column(browser, "algorithm")
    for details in browser.find_elements(By.TAG_NAME, "summary"):
        details.click()
    text = browser.find_element(By.TAG_NAME, "body").text
    assert text.count(HOSTILE) > 12
    assert "{{7*7}}" in text, "a name is no template"
    assert HOSTILE in switches(browser)


def test_a_box_hides_that_method_alone_in_all_plots(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    browser.find_element(By.CSS_SELECTOR, "input[data-method=middle]").send_keys(Keys.SPACE)
    drawn = browser.execute_script(
        """
        const models = [...Bokeh.documents[0].all_models].filter((model) => model.type === "GlyphRenderer");
        return models.map((model) => [model.name, model.visible]);
        """
    )
    hidden = [name for name, visible in drawn if not visible]
    assert len(hidden) > 5
    assert set(hidden) == {"middle"}
    assert "middle" not in [name for name, visible in drawn if visible]


def test_reasons_of_failures_are_shown_even_if_every_method_failed(
    report: Report, make_record: Make, page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(make_record(None, error="no luck")))
    (row,) = browser.find_elements(By.CSS_SELECTOR, "section[aria-labelledby=missing] tbody tr")
    assert row.text == "one failed 0 glyphs · 5-way 1-shot · conv4 no luck"
    assert column(browser, "task") == ["glyphs · 5-way 1-shot · conv4"]


def test_skipped_cells_are_named_with_the_reason(report: Report, make_record: Make) -> None:
    skipped = make_record(None, algorithm="two", cell=f"{2:016}", status="skipped", error="one output per class")
    text = report(make_record(0.5), skipped).read_text(encoding="utf-8")
    shown = text.partition("<main")[2].partition("<script")[0]
    assert "skipped" in shown
    assert "one output per class" in shown
    assert "failed" not in shown


def test_parameters_that_vary_are_sorted_by_number_or_text(report: Report, make_record: Make) -> None:
    def tuned(i: int, lr: float, norm: str) -> Record:
        identity = {"algorithm": {"name": "maml", "params": {"lr": lr}}, "backbone": {"params": {"norm": norm}}}
        return make_record(0.5, algorithm=f"maml[lr={lr}]", cell=f"{i:016}", identity=identity)

    text = report(tuned(1, 0.1, "batch"), tuned(2, 0.2, "support")).read_text(encoding="utf-8")
    for cell in ('data-value="0.1">0.1</td>', '<td class="left parameters">support</td>'):
        assert text.count(cell) == 1


def test_a_link_that_is_no_web_address_is_not_clickable(
    report: Report, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [
        PublishedResult("one", "glyphs", 5, 1, 0.987, source="Doe", link=link)
        for link in ("javascript:alert(1)", "https://example.org/paper")
    ]
    monkeypatch.setattr(PluginManager, "published_results", lambda self: results)
    identity = {"algorithm": {"name": "one"}, "dataset": {"name": "glyphs"}}
    for result, followed in zip(list(results), ([], ["https://example.org/paper"]), strict=True):
        results[:] = [result]
        links = Links()
        links.feed(report(make_record(0.5, identity=identity)).read_text(encoding="utf-8"))
        assert [link for link in links.followed if not link.startswith(("#", "data:"))] == followed


def test_the_worst_classes_and_the_worst_episode_are_shown(
    report: Report, records: list[Record], page: Callable[[Path], webdriver.Chrome]
) -> None:
    browser = page(report(*records))
    browser.find_element(By.XPATH, "//summary[contains(., 'Worst classes')]").click()
    assert browser.find_element(By.XPATH, "//th[text()='Greek/alpha']").is_displayed()
    picture = browser.find_element(By.CSS_SELECTOR, "figure img")
    assert browser.execute_script("return arguments[0].naturalWidth", picture) > 100
    assert "worst episode of high" in (picture.get_attribute("alt") or "")


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.followed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.loaded.append(value or "")
            elif name == "href":
                self.followed.append(value or "")


def test_the_page_needs_no_other_file(report: Report, records: list[Record]) -> None:
    links = Links()
    links.feed(report(*records).read_text(encoding="utf-8"))
    assert [link for link in links.loaded if not link.startswith("data:")] == []


def test_only_and_output_choose_the_cells_and_the_file_of_the_report(
    report: Report, records: list[Record], tmp_path: Path
) -> None:
    other = tmp_path / "other.html"
    assert not report(*records, arguments=("--only", "algorithm=low,high", "--output", str(other))).exists()
    text = other.read_text(encoding="utf-8")
    assert ">low<" in text
    assert ">middle<" not in text
