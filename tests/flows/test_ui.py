"""The interface as a new user walks through it, in a real browser: fill the form, see a run fail and why, retry it, watch it, read what came out.

`UI_PICTURES=deployments/images pytest tests/flows/test_ui.py` also saves the pictures that the guides show, from a larger session.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.flows.servers import ROOT, ask, bookmill, prefect_server

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `test`)")
from selenium.common.exceptions import ElementClickInterceptedException, NoSuchElementException, StaleElementReferenceException, TimeoutException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PICTURES = os.environ.get("UI_PICTURES")
RECORDS = "300000" if PICTURES else "20000"

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver (Debian: chromium, chromium-driver) are not installed")


class Page:
    """A browser on the interface of a server; finds things as a person does, by what is written on them."""

    def __init__(self, browser: Any, base: str) -> None:
        self.browser, self.base = browser, base

    def open(self, path: str) -> None:
        self.browser.get(self.base + path)

    def wait(self, condition: Any, what: str, seconds: float = 60) -> Any:
        ignored = [NoSuchElementException, StaleElementReferenceException, ElementClickInterceptedException]  # it moves into place
        try:
            return WebDriverWait(self.browser, seconds, 0.2, ignored).until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"{what}; the page says:\n{self.text()}")

    def text(self) -> str:
        return str(self.browser.find_element(By.TAG_NAME, "body").text)

    def shows(self, text: str, seconds: float = 60) -> None:
        self.wait(lambda: text in self.text(), f"{text!r} does not appear", seconds)

    def click(self, text: str, within: str = "") -> None:
        """Click the first button, link or tab that says `text`; within: CSS class of what holds it, such as a dialogue."""
        inside = f"//*[contains(concat(' ', @class, ' '), ' {within} ')]" if within else ""
        path = f"{inside}//*[self::button or self::a or self::li][normalize-space()={text!r}]"

        def clicked() -> bool:
            shown = [e for e in self.browser.find_elements(By.XPATH, path) if e.is_displayed() and e.is_enabled()]
            if shown:
                shown[0].click()
            return bool(shown)

        self.wait(clicked, f"nothing to click that says {text}")

    def state(self, wanted: str, seconds: float) -> None:
        """Wait until the run that is shown has this state."""
        path = f"//*[contains(concat(' ', @class, ' '), ' state-badge ')][normalize-space()='{wanted}']"
        self.wait(lambda: self.browser.find_element(By.XPATH, path).is_displayed(), f"the run does not become {wanted}", seconds)

    def field(self, name: str) -> Any:
        """The field of a parameter."""
        path = f"//div[contains(@class, 'schema-form-property')][contains(@class, 'p-label')][.//label[starts-with(normalize-space(), '{name}')]]"
        return self.wait(lambda: self.browser.find_element(By.XPATH, path), f"no field {name}")

    def add(self, name: str, value: str) -> None:
        """An item to a list."""
        field = self.field(name)
        self.wait(lambda: field.find_element(By.XPATH, ".//button[normalize-space()='Add item']").click() is None, f"{name} has no button")
        self.wait(lambda: self.field(name).find_element(By.TAG_NAME, "textarea").send_keys(value) is None, f"{name} has no item")

    def submit(self) -> None:
        """Send the form and follow the link to its run. The server checks the form first: one too busy to answer leaves it as it is, so again."""
        sent = time.monotonic() - 60

        def followed() -> bool:
            nonlocal sent
            if time.monotonic() - sent > 15 and self.browser.find_elements(By.XPATH, "//button[normalize-space()='Submit']"):
                sent = time.monotonic()
                self.click("Submit")
            self.browser.find_element(By.CSS_SELECTOR, "a[href*='/runs/flow-run/']").click()
            return True

        self.wait(followed, "the run is not listed", 120)

    def picture(self, name: str, height: int = 800, around: str = "") -> None:
        """Save what is shown, small enough for a guide; around: XPath of what should be seen."""
        if PICTURES:
            if around:
                found = self.browser.find_element(By.XPATH, around)
                self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            time.sleep(5)  # the graph of a run moves into place
            shown = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
            shown = shown.crop((0, 0, shown.width, min(height, shown.height))).quantize(96)
            shown.save(Path(PICTURES) / f"{name}.png", "PNG", optimize=True)

    def hosts(self) -> set[str]:
        """Every host that the browser asked for anything."""
        sent = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}


@pytest.fixture
def folder(tmp_path):
    """Where feeds, lake and logs of the test are; in pictures a short name, which leaves room for what they show."""
    short = Path(tempfile.gettempdir(), "market-data")
    if PICTURES:
        shutil.rmtree(short, ignore_errors=True)
        short.mkdir()
    yield short if PICTURES else tmp_path
    if PICTURES:
        shutil.rmtree(short)


@pytest.fixture
def page(tmp_path):
    """A function from a base URL to a page in a headless browser of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")
    size = ("--window-size=1280,1000", f"--user-data-dir={tmp_path / 'browser'}")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet, *size):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield lambda base: Page(browser, base)
    browser.quit()


@pytest.fixture
def server(folder):
    """URL of the API of a server, deployed to by `bookmill deploy`, with a worker that may touch only two folders."""
    home, places = folder / "home", [folder / "feeds", folder / "lake"]
    for path in (home, *places):
        path.mkdir()
    with prefect_server(home) as url:
        code, said = bookmill(["deploy", "--lake", str(folder / "lake")], url, home, folder / "deploy.log")
        assert code == 0, said
        assert "created the deployment market-by-order/market-by-order" in said
        assert "prefect worker start --pool bookmill" in said
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BOOKMILL_")}
        environ |= {
            "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1", "BOOKMILL_PROFILE": "ci", "PYTHONPATH": str(ROOT),
            "BOOKMILL_ROOTS": ",".join(map(str, places)), "PREFECT_WORKER_QUERY_SECONDS": "1",
        }  # fmt: skip
        with (folder / "worker.log").open("wb") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "bookmill"]
            worker = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        yield url
        worker.send_signal(signal.SIGINT)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


# Two runs with their gates, a server, a worker and a browser: a minute and a half on two idle cores.
@pytest.mark.timeout(900)
def test_a_new_user_runs_watches_repairs_and_reads_a_run_in_the_browser(folder, server, page):
    page = page(server.removesuffix("/api"))
    source = folder / "feeds" / "es-20251022.mbo.dbn.zst"

    # Both deployments are offered, and the worker makes them ready.
    names = {"deployments": {"tags": {"all_": ["bookmill"]}}}
    page.wait(lambda: {d["status"] for d in ask(server, "/deployments/filter", names)} == {"READY"}, "no worker came")
    page.open("/deployments")
    page.wait(lambda: page.text().count("\nReady\n") >= 2, "the deployments are not ready")
    page.picture("ui-deployments", 392)

    # The form: what it explains, what it offers, what it refuses.
    page.click("market-by-order")
    page.click("Run")
    page.click("Custom run")
    page.shows("files, folders or globs")
    assert page.field("lake").find_element(By.TAG_NAME, "textarea").get_attribute("value") == str(folder / "lake")
    offered = [option.text for option in page.field("clock").find_elements(By.TAG_NAME, "option")]
    assert [text for text in offered if text] == ["ts_recv", "ts_event"]
    page.click("Submit")
    page.shows("required")
    page.add("sources", str(source))
    page.wait(lambda: page.field("sources").find_element(By.TAG_NAME, "textarea").get_attribute("value") == str(source), "the item is not as typed")
    page.picture("ui-form", around="//label[starts-with(normalize-space(), 'lake')]")
    page.submit()

    # The file is not there yet: the run fails, and says so where one looks first.
    page.state("Failed", 240)
    run = page.browser.current_url.split("/flow-run/")[1].split("?")[0]
    page.shows(f"{source}: does not exist")
    assert "Traceback" not in page.text()
    page.picture("ui-failed", around="(//*[contains(., 'does not exist')])[last()]")

    # The file arrives; Retry, and watch.
    subprocess.run(
        [sys.executable, "-m", "deployments.cli", "generate", str(source), "--records", RECORDS], cwd=ROOT, check=True, capture_output=True
    )
    page.click("Retry")
    page.click("Retry", "p-modal")
    page.state("Running", 240)
    page.click("Artifacts")
    page.wait(lambda: "market-by-order-progress" in page.text(), "no progress is shown", 90)
    page.wait(lambda: "gate" in page.text() or "rows" in page.text(), "the progress says nothing", 90)
    page.click("Logs")
    page.picture("ui-running")
    page.state("Completed", 600)
    assert ask(server, f"/flow_runs/{run}")["state_type"] == "COMPLETED"
    assert ask(server, f"/flow_runs/{run}")["run_count"] == 2
    page.browser.refresh()
    page.state("Completed", 30)
    page.picture("ui-completed")

    # What came out, from the artifacts.
    page.click("Artifacts")
    for key in ("bookmill-run", "bookmill-partitions", "bookmill-certificates", "bookmill-heatmap-1", "bookmill-report"):
        page.shows(key)
    links = {
        a.text.split("\n")[1]: a.get_attribute("href") for a in page.browser.find_elements(By.XPATH, "//a[contains(@href, 'artifacts/artifact/')]")
    }
    page.browser.get(links["bookmill-run"])
    page.shows("The one partition is done")
    page.shows("ledger: adds up")
    page.picture("ui-summary", 700)
    page.browser.get(links["bookmill-heatmap-1"])
    picture = page.wait(lambda: page.browser.find_element(By.CSS_SELECTOR, "img[src^='data:image/png']"), "no heatmap")
    assert page.browser.execute_script("return arguments[0].complete && arguments[0].naturalWidth", picture) > 500
    page.picture("ui-heatmap")
    page.browser.get(links["bookmill-report"])
    report = page.wait(lambda: page.browser.find_element(By.XPATH, "//a[starts-with(@href, 'file:')]"), "no link to the report")
    assert Path(urlsplit(report.get_attribute("href")).path).is_relative_to(folder / "lake/reports")
    assert Path(urlsplit(report.get_attribute("href")).path).is_file()

    # Nothing was asked of any other host.
    assert page.hosts() == {urlsplit(server).netloc}
