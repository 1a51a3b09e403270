"""A browser for tests of pages: Chromium without a window, driven through its debugging protocol over pipes.

https://chromedevtools.github.io/devtools-protocol/ describes the commands. `find_chromium` looks for an installed one;
tests that need it are skipped by name where there is none.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--remote-debugging-pipe")  # fmt: skip
SECONDS = 60.0
# The pairs of texts in sight whose boxes overlap, of elements that are not one inside the other.
OVERLAPPING_TEXTS = """(() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest("script, style, select, option, .hidden")) continue;
    if (!parent.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      let [left, top, right, bottom] = [box.left, box.top + 2, box.right, box.bottom - 2];
      for (let around = parent; around; around = around.parentElement) {
        if (!["hidden", "auto", "scroll"].includes(getComputedStyle(around).overflowX)) continue;
        const edge = around.getBoundingClientRect();
        [left, top] = [Math.max(left, edge.left), Math.max(top, edge.top)];
        [right, bottom] = [Math.min(right, edge.right), Math.min(bottom, edge.bottom)];
      }
      const text = node.textContent.trim().slice(0, 40);
      if (right - left > 1 && bottom - top > 1) texts.push({ node, text, left, top, right, bottom });
    }
  }
  const pairs = [];
  texts.forEach((one, index) => texts.slice(index + 1).forEach((other) => {
    const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (one.node !== other.node && wide > 1 && high > 1) pairs.push([one.text, other.text]);
  }));
  return pairs;
})()"""


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


needs_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome is installed")


class Browser:
    """One browser with one page; `errors` are what its console has reported and the exceptions of its scripts."""

    def __init__(self, program: str, profile: Path) -> None:
        (command_end, self._commands), (self._answers, answer_end) = os.pipe(), os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        script = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
        arguments = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(["/bin/bash", "-c", script, "bash", *arguments],
                                         pass_fds=(command_end, answer_end), stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(command_end)
        os.close(answer_end)
        os.set_blocking(self._answers, False)
        self._received, self._numbers, self._session = b"", itertools.count(1), None
        self.errors: list[str] = []
        self.requests: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for answer in self._messages():
                if answer.get("id") == number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    return answer["result"]
        raise TimeoutError(f"{method} has no answer after {SECONDS:.0f} s")

    def _messages(self) -> list[Any]:
        try:
            chunk = os.read(self._answers, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
            return []
        assert chunk, "the browser has ended"
        *complete, self._received = (self._received + chunk).split(b"\0")
        messages = list(map(json.loads, complete))
        for message in messages:
            self._note(message.get("method"), message.get("params", {}))
        return messages

    def _note(self, method: str | None, parameters: Any) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(str(parameters["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, path: Path, width: int = 1400, height: int = 850, theme: str = "light") -> None:
        """Open a page at a size in pixels, and wait until it is loaded."""
        self.errors, self.requests = [], []
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=False)  # fmt: skip
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, waited for if it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Wait until a JavaScript condition holds."""
        self._until(lambda: bool(self.evaluate(condition)), condition, seconds)

    def _until(self, holds: Callable[[], bool], text: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not so after {seconds:.0f} s: {text}; errors: {self.errors}"
            time.sleep(0.02)

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse at a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key, such as ArrowLeft."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Home": 36, "End": 35}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            given = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **given)

    def type(self, text: str) -> None:
        """Insert text where the focus is."""
        self.call("Input.insertText", text=text)

    def overlapping_texts(self) -> list[list[str]]:
        """The pairs of texts in sight that overlap."""
        pairs: list[list[str]] = self.evaluate(OVERLAPPING_TEXTS)
        return pairs

    def is_too_wide(self) -> bool:
        """Whether the page scrolls sideways."""
        return bool(self.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def screenshot(self, path: Path) -> None:
        """Write what is in sight as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        os.close(self._commands)  # Chromium ends when the pipe does
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
