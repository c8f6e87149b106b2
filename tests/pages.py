"""A real browser for reports: what a page shows, asks for and complains about, by day and by night.

The fixture `browser` in conftest.py is one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
LIGHT, DARK = "light", "dark"


def open_browser(profile: Path) -> Any:
    """Headless Chromium, logging what pages complain about and ask for. Skips the test where there is none."""
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.get("about:blank")
    return driver


def show(browser: Any, file: Path, width: int, theme: str) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what came before is not the page's
    browser.get(file.as_uri())


def complaints(browser: Any) -> list[Any]:
    """Errors and warnings of the page that was shown last."""
    return browser.get_log("browser")


def requests(browser: Any) -> set[str]:
    """Every address that showing the page has asked for, without data: of its own."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return {url for url in asked if not url.startswith(("data:", "chrome://"))}


def contrasts(browser: Any) -> list[tuple[float, str]]:
    """WCAG's contrast of every text of the page, in figures too, against the page, and the text's beginning."""
    return browser.execute_script("""
        const rgb = text => text.match(/[\\d.]+/g).map(Number);
        const luminance = text => rgb(text).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const page = luminance(getComputedStyle(document.documentElement).backgroundColor);
        const colour = node => node.closest('svg') ? getComputedStyle(node).fill : getComputedStyle(node).color;
        return [...document.querySelectorAll('h1, h2, p, th, li span, svg text, dt, dd, summary')].map(node => {
            const own = luminance(colour(node));
            const [high, low] = own > page ? [own, page] : [page, own];
            return [(high + 0.05) / (low + 0.05), node.textContent.trim().slice(0, 30)];
        });
    """)
