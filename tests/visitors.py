"""Runs with a page, and who looks at it: real commands, a real browser, plain clients."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from processes import ROOT, end, serving, start
from twins import RunningTwin

URL = re.compile(r"page: (http://\S+)")


@dataclass
class Run:
    """A command that has a page."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    @property
    def said(self) -> str:
        return self.log.read_text()

    def status(self, timeout_s: float = 20.0) -> int:
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def running(command: str, log: Path, *arguments: str) -> Iterator[Run]:
    """`tactus COMMAND --page=0 ARGUMENTS`, from when its page is there; ended afterwards."""
    process = start(command, ["--page=0", *arguments], log)
    try:
        until(lambda: bool(URL.search(log.read_text())) or process.poll() is not None, log.read_text)
        found = URL.search(log.read_text())
        assert found, log.read_text()
        yield Run(process, log, found[1])
    finally:
        end(process, 20)


def until(there: Callable[[], object], tell: Callable[[], object] = lambda: "", timeout_s: float = 60.0) -> Any:
    """Wait for it, and return it."""
    give_up_s = time.monotonic() + timeout_s
    while not (found := there()):
        assert time.monotonic() < give_up_s, tell()
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def picking(twin: RunningTwin, folder: Path, *arguments: str) -> Iterator[tuple[Run, subprocess.Popen[bytes]]]:
    """The picker on the twin's table, at work with a page; and its policy node."""
    keys = (twin.folder / "robot.keys").read_text().split()
    config = f"--config_path={ROOT / 'launch' / 'so100.yaml'}"
    with serving(folder / "serve.log", config, "--beside=run") as (node, endpoint):
        more = [config, *keys, f"--connect={endpoint}", f"--output_dir={folder / 'out'}", *arguments]
        with running("run", folder / "run.log", *more) as run:
            yield run, node


@contextlib.contextmanager
def ticking(folder: Path, *arguments: str, cameras: int = 0, image_size: tuple[int, int] = (240, 320)) -> Iterator[Run]:
    """A synthetic robot that counts, with a page."""
    pictures = [f"cameras={cameras}", f"image_size=[{image_size[0]},{image_size[1]}]", "width=3"]
    robot = ["--robot.type=synthetic", "--robot.steps=100000", *(f"--robot.{key}" for key in pictures)]
    policy = ["--policy.type=ticker", *(f"--policy.{key}" for key in pictures)]
    with (
        serving(folder / "serve.log", *policy) as (_, endpoint),
        running(
            "run", folder / "run.log", *robot, f"--connect={endpoint}", f"--output_dir={folder / 'out'}", *arguments
        ) as run,
    ):
        yield run


def torque_on(twin: RunningTwin) -> list[bool]:
    return list(twin.arm("arm")["torque_on"].values())


def off_s(twin: RunningTwin, after_s: float) -> float:
    """When the last of the motors was told to let go, monotonic; the twin's log of that is on disk a moment later."""

    def told() -> dict[int, float]:
        first: dict[int, float] = {}
        for write in twin.writes():
            if write["register"] == "Torque_Enable" and not write["value"] and write["t"] > after_s:
                first.setdefault(write["id"], write["t"])
        return first

    until(lambda: len(told()) == 6, lambda: str(told()), 10)
    return max(told().values())


def asked(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer; a header's name has _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def origin_of(url: str) -> str:
    return f"http://{urlsplit(url).netloc}"


def look(browser: Any, url: str, width: int, theme: str = "light") -> None:
    """Open the page at this width of a window."""
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(url)


def text_of(browser: Any, name: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


def picture_of(browser: Any, camera: str) -> list[int]:
    """What is shown of a camera: mean colours of an 8x6 grid, and its size; empty before there is a picture."""
    return json.loads(
        browser.execute_script(
            """
            const img = [...document.images].find(one => one.alt === `What camera ${arguments[0]} sees`);
            if (!img || img.naturalWidth < 16) return '[]';
            const canvas = document.createElement('canvas'); canvas.width = 8; canvas.height = 6;
            const pen = canvas.getContext('2d'); pen.drawImage(img, 0, 0, 8, 6);
            return JSON.stringify([img.naturalWidth, img.naturalHeight, ...pen.getImageData(0, 0, 8, 6).data]);
            """,
            camera,
        )
    )


CONTRASTS = """
const rgba = text => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = node => {
    for (; node; node = node.parentElement) {
        const colour = rgba(getComputedStyle(node).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
while (texts.nextNode()) {
    const node = texts.currentNode.parentElement, words = texts.currentNode.textContent.trim();
    if (!words || ['SCRIPT', 'STYLE'].includes(node.tagName) || !node.checkVisibility()) continue;
    const [one, other] = [luminance(rgba(getComputedStyle(node).color)), luminance(behind(node))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), words.slice(0, 30)]);
}
return found;
"""
"""WCAG's contrast of every text that is shown against what is behind it, and its beginning."""
