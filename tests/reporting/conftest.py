"""A real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """Return a headless Chromium."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("chromium and chromedriver are not installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Callable[[Path], webdriver.Chrome]:
    """Return a function that opens a page and waits for its plots."""

    def open_(path: Path) -> webdriver.Chrome:
        chromium.set_window_size(1200, 900)
        chromium.get(path.as_uri())
        chromium.get_log("browser")
        chromium.refresh()
        WebDriverWait(chromium, 20).until(
            lambda driver: driver.execute_script(
                "return document.documentElement.dataset.ready"
                " && (!window.Bokeh || Bokeh.documents.every((plots) => plots.is_idle))"
            )
        )
        return chromium

    return open_
