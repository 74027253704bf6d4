"""A real browser without a window, and the page of a trace in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 20  # seconds until a condition has to hold

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), "")
DRIVER = shutil.which("chromedriver") or ""

#: Why no browser can be started; empty if one can.
MISSING = "" if BROWSER and DRIVER else "BROWSER TESTS DID NOT RUN: no chromium, or no chromedriver"


@contextmanager
def started(work: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a home of its own, which knows of no network but the driver's connection.

    Args:
        work: a directory for all its files.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # Its sandbox needs what root and containers do not give; the pages are our own.
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb"),
        *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"),
        f"--user-data-dir={work / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    (work / "tmp").mkdir()
    places = {"HOME": str(work), "TMPDIR": str(work / "tmp"), "XDG_RUNTIME_DIR": str(work)}
    service = Service(DRIVER, log_output=subprocess.DEVNULL, env={**os.environ, **places})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@dataclass(frozen=True)
class Tab:
    """The page of a trace, open in a browser."""

    driver: webdriver.Chrome

    def open(
        self,
        file: Path,
        *,
        size: tuple[int, int] = (1280, 800),
        dark: bool = False,
        motion: bool = False,
        scripts: bool = True,
    ) -> None:
        """Load a page as a screen of a size, and with a person's preferences."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", metrics)
        self.command("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})
        self.command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        preferences = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "no-preference" if motion else "reduce",
        }
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        self.command("Emulation.setEmulatedMedia", {"features": features})
        self.log("performance")
        self.log("browser")
        self.driver.get(file.as_uri())

    def command(self, name: str, values: dict[str, Any]) -> None:
        self.driver.execute_cdp_cmd(name, values)

    def run(self, script: str, *values: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *values)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The words that a person sees there."""
        return self.find(selector).text

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return list(self.run(script, selector))

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def until(self, script: str) -> None:
        """Wait until a script in the page returns something true."""
        WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: self.run(script))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was written to a log since it was read last."""
        entries: list[dict[str, Any]] = self.driver.execute(Command.GET_LOG, {"type": kind})[
            "value"
        ]
        return entries

    @property
    def requests(self) -> list[str]:
        """What the page asked for since it was opened."""
        messages = [json.loads(e["message"])["message"] for e in self.log("performance")]
        sent = "Network.requestWillBeSent"
        return [m["params"]["request"]["url"] for m in messages if m["method"] == sent]

    @property
    def complaints(self) -> list[str]:
        """What the browser wrote to its console since the page was opened."""
        return [entry["message"] for entry in self.log("browser")]
