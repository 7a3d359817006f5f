"""The page of a run that goes on, from a server of this computer."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from counting import Counted, Counting, finished_record
from metabench.errors import UsageError
from metabench.executors.going_run import GoingRun
from metabench.executors.job_files import Claim, Progress, Submitted
from metabench.executors.job_folder import JobFolder
from metabench.executors.status import status_of
from metabench.records.store import Store
from metabench.reporting.status.server import StatusServer

NAMES = ("protonet", "maml-with-a-long-label[inner_lr=0.01,inner_steps=5]", "reptile")
CELLS = [Counted(name, number) for name in NAMES for number in range(4)]


@pytest.fixture
def going(tmp_path: Path) -> Path:
    """Return a run of twelve cells: five ok, one failed, one running, one lost, four waiting."""
    output = tmp_path / "runs" / "omniglot"
    store = Store(output)
    store.write_suite({"name": "omniglot"})
    store.write_plan(CELLS)
    for cell in CELLS[:5]:
        store.write(finished_record(cell.id, algorithm=cell.training))
    failed = {"status": "failed", "error": "<script>alert('a loss')</script> is not finite", "metrics": {}}
    store.write(finished_record(CELLS[5].id, algorithm=CELLS[5].training, **failed))
    seconds = {cell.id: 600.0 for cell in CELLS}
    GoingRun.of_this_process(executor="processes", slots=2, cells=list(seconds), expected=seconds).write(
        output / "jobs"
    )
    worker = Claim.of_this_process(2)
    begin(output, CELLS[6], worker, Progress(cell=CELLS[6].id, phase="train", total=2000, done=1240, note="loss 0.41"))
    begin(output, CELLS[8], worker.model_copy(update={"pid": 2**22 + 1}), Progress())
    return output


def begin(output: Path, cell: Counted, worker: Claim, progress: Progress) -> None:
    folder = JobFolder.of(output, cell.id)
    submitted = Submitted(title=cell.title, cells=[cell.id], executor="processes", attempt=worker.attempt)
    folder.write_job(Counting.of(cell.training), submitted)
    folder.take(worker)
    folder.beat(1)
    folder.write_progress(progress)


@pytest.fixture
def server(going: Path) -> Iterator[StatusServer]:
    with StatusServer(going, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server: StatusServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_the_page_and_its_data_are_all_that_is_served(server: StatusServer, going: Path) -> None:
    code, page, headers = asked(server, "/")
    assert code == 200
    assert str(going) in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in page.replace("http-equiv", ""), "nothing is loaded from elsewhere"
    code, data, _ = asked(server, "/status.json")
    assert code == 200
    told, now = json.loads(data), json.loads(status_of(going).model_dump_json())
    assert told["counts"] == now["counts"] == {"ok": 5, "failed": 1, "running": 1, "lost": 1, "waiting": 4}
    assert told.keys() == now.keys()
    for path in ("/suite.yaml", "/../runs", "/status.json?x", "/page.css"):
        assert asked(server, path)[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert asked(server, "/", method)[0] == 501


def test_a_page_of_elsewhere_cannot_read_it(server: StatusServer) -> None:
    assert asked(server, "/status.json", Host="evil.example")[0] == 403
    assert server.server_address[0] == "127.0.0.1"
    _, _, headers = asked(server, "/status.json")
    assert "Access-Control-Allow-Origin" not in headers


def test_a_run_that_cannot_be_read_is_told(server: StatusServer, going: Path) -> None:
    (going / "plan.json").write_text("damaged", encoding="utf-8")
    code, data, _ = asked(server, "/status.json")
    assert code == 503
    assert "plan.json is damaged" in json.loads(data)["error"]


def test_a_port_that_is_taken_is_refused(server: StatusServer, going: Path) -> None:
    with pytest.raises(UsageError, match=f"--serve {server.server_port}: the port cannot be used"):
        StatusServer(going, server.server_port)


Opened = Callable[[int, str], webdriver.Chrome]


@pytest.fixture
def opened(chromium: webdriver.Chrome, server: StatusServer) -> Iterator[Opened]:
    """Return a function that opens the page in a width and a colour scheme."""

    def open_(width: int, scheme: str) -> webdriver.Chrome:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        chromium.get(server.address)
        WebDriverWait(chromium, 60).until(
            lambda driver: driver.execute_script("return document.documentElement.dataset.ready")
        )
        return chromium

    yield open_
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def text_of(page: webdriver.Chrome, selector: str) -> str:
    return str(page.execute_script("return document.querySelector(arguments[0]).innerText", selector))


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1200, "light"), (1200, "dark")])
def test_the_page_fits_its_window_and_reads_well(opened: Opened, width: int, scheme: str) -> None:
    page = opened(width, scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert "<script>alert('a loss')</script> is not finite" in text_of(page, "details[data-state=failed]")
    assert "train 1240/2000 loss 0.41" in text_of(page, "details[data-state=running]")
    assert "its worker has ended without a word" in text_of(page, "details[data-state=lost]")
    assert "5 ok" in " ".join(text_of(page, "#counts").split())
    assert text_of(page, "#end").startswith("Expected end: ")
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) < 200) == (scheme == "dark")
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_page_refreshes_itself_and_keeps_what_was_opened(opened: Opened, going: Path) -> None:
    page = opened(1200, "light")
    page.execute_script("document.querySelector('details[data-state=ok]').open = true")
    Store(going).write(finished_record(CELLS[11].id, algorithm=CELLS[11].training))
    WebDriverWait(page, 60).until(lambda driver: "6 ok" in " ".join(text_of(driver, "#counts").split()))
    assert page.execute_script("return document.querySelector('details[data-state=ok]').open")
    assert not page.execute_script("return document.querySelector('details[data-state=waiting]').open")


def test_the_page_says_that_its_command_has_ended(opened: Opened, server: StatusServer) -> None:
    page = opened(1200, "light")
    server.shutdown()
    server.server_close()
    WebDriverWait(page, 60).until(lambda driver: "has ended" in text_of(driver, "#problem"))
