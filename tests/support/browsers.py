"""A real Chromium that opens pages as a reader would, and says what it saw."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

# Chromium reads its orders from descriptor 3 and answers on 4.
LAUNCH = """
import os, sys
pipes = [os.dup(int(number)) for number in sys.argv[1:3]]
spare = [os.dup(pipe) for pipe in pipes]  # so that neither is overwritten by the other
os.dup2(spare[0], 3), os.dup2(spare[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Elements that stick out of the screen, whether or not they make the page scroll; what scrolls
# within itself may.
STICKING_OUT = """
[...document.querySelectorAll("main, main *")].filter(element => {
  const box = element.getBoundingClientRect();
  const hidden = element.closest("caption, thead, title, .scroll > *");
  return !hidden && box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 100))
"""
# Words of one chart that lie on top of each other.
OVERLAPPING = """
[...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text:not(.arrow)")];
  const boxes = texts.map(text => text.getBoundingClientRect());
  return texts.flatMap((text, i) => boxes.slice(i + 1)
    .map((other, j) => [boxes[i], other, j + i + 1])
    .filter(([a, b]) => a.left < b.right && b.left < a.right
                        && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
    .map(([, , j]) => `${text.textContent} / ${texts[j].textContent}`));
})
"""


class Browser:
    """A headless Chromium, driven through a pipe by its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        assert program, "chromium is not installed; `make test-services` installs it"
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCH, str(orders), str(answers), program),
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
                *("--no-first-run", "--disable-breakpad", f"--user-data-dir={profile}"),
            ],
            pass_fds=(orders, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(orders)
        os.close(answers)
        self._read = bytearray()
        self._number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Sends an order and waits for its answer; events that come meanwhile are kept."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            order["sessionId"] = self.session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self.events.append(said)
        assert "error" not in said, f"{method}: {said}"
        answer: dict[str, Any] = said["result"]
        return answer

    def wait(self, method: str) -> None:
        """Until an event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page says
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        """Ends it, and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        os.close(self._orders)
        os.close(self._answers)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "chromium does not answer"
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, "chromium has ended"
            self._read += chunk
        line, _, rest = bytes(self._read).partition(b"\0")
        self._read = bytearray(rest)
        said: dict[str, Any] = json.loads(line)
        return said


class Opened:
    """A page in a tab of its own."""

    def __init__(self, browser: Browser, path: Path, width: int, theme: str) -> None:
        self._browser = browser
        browser.session = None
        browser.events.clear()
        self._target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=self._target, flatten=True)
        browser.session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network", "Audits"):
            browser.ask(f"{domain}.enable")
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.ask("Emulation.setDeviceMetricsOverride", **screen)
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        browser.ask("Emulation.setEmulatedMedia", features=scheme)
        browser.ask("Page.navigate", url=path.as_uri())
        browser.wait("Page.loadEventFired")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.session = None
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page says
        """The value of a JavaScript expression."""
        return self._browser.evaluate(expression)

    def shot(self) -> bytes:
        """All of the page as PNG."""
        answer = self._browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        answer = self._browser.ask("Page.printToPDF", printBackground=False)
        return base64.b64decode(answer["data"])

    def names(self, role: str) -> list[str]:
        """What a reader of the screen hears of the elements of a role."""
        tree = self._browser.ask("Accessibility.getFullAXTree")["nodes"]
        found = [node for node in tree if node.get("role", {}).get("value") == role]
        return [node.get("name", {}).get("value", "") for node in found if not node["ignored"]]

    def complaints(self) -> list[str]:
        """What the console, the log or the inspector said, and requests beside the page's own."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        events = self._browser.events
        said = [str(e) for e in events if e.get("method") in (*kinds, "Audits.issueAdded")]
        asked = [e for e in events if e.get("method") == "Network.requestWillBeSent"]
        return said + [str(event["params"]["request"]["url"]) for event in asked[1:]]
