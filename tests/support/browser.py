"""Chromium without a window, driven by the DevTools protocol over a pipe: for pages that are opened from the disk."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Seconds that something on a page may take.
_PATIENCE = 30.0


class NavigatedError(AssertionError):
    """The page was replaced before it answered."""


class Browser:
    """A browser with one tab. Use as a context manager; its profile is in `folder`."""

    def __init__(self, folder: Path, *, width: int = 1200, height: int = 800) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        arguments = [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            f"--window-size={width},{height}",
        ]
        # The browser reads from descriptor 3 and writes to 4.
        line = f'exec "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", *arguments],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def ask(self, method: str, arguments: dict[str, object] | None = None) -> Any:
        """Call a method of the protocol for the tab."""
        return self._ask(method, arguments or {}, self._session)

    def go(self, path: Path, ready: str) -> float:
        """Open a file; returns the seconds until the expression `ready` is true."""
        began = time.monotonic()
        self.ask("Page.navigate", {"url": path.absolute().as_uri()})
        self.wait(ready)
        return time.monotonic() - began

    def value(self, expression: str) -> Any:
        """The value of an expression in the page; an error there is raised here."""
        answer = self.ask("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression in the page is true."""
        until = time.monotonic() + _PATIENCE
        while not self._holds(f"Boolean((() => {{ try {{ return {expression}; }} catch {{ return false; }} }})())"):
            assert time.monotonic() < until, (expression, self.errors)
            time.sleep(0.02)

    def _holds(self, expression: str) -> bool:
        """The value of an expression; false while the page is being replaced by another."""
        try:
            return bool(self.value(expression))
        except NavigatedError:
            return False

    def press(self, key: str, *, ctrl: bool = False, shift: bool = False) -> None:
        """Press a key."""
        more: dict[str, object] = {"text": key} if len(key) == 1 and not ctrl else {}
        more |= {"modifiers": 2 * ctrl + 8 * shift}
        if key == "Escape":  # what the browser itself does at a key, it does by the code
            more |= {"windowsVirtualKeyCode": 27, "code": key}
        self.ask("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, **more})
        self.ask("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, **more})

    def point(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.ask("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def draw(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place (x, y), move it over the others, and release it at the last one."""
        moves = [("mouseMoved", each) for each in places[1:]]
        for kind, (x, y) in [("mousePressed", places[0]), *moves, ("mouseReleased", places[-1])]:
            more = {"button": "left", "buttons": 1, "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        """Send a touch event with a finger at each place (x, y); kind is "Start", "Move" or "End"."""
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        self.ask("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, arguments: dict[str, object], session: str | None = None) -> Any:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": arguments}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "navigated" in str(answer.get("error")):
                    raise NavigatedError(answer["error"])
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Page.javascriptDialogOpening":
            self.dialogs.append(event["params"]["message"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(event["params"]["exceptionDetails"])[:1000])
        elif event.get("method") == "Log.entryAdded":
            self.errors.append(str(event["params"]["entry"]["text"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)


# ---- the page of `tipsseg report` ----


def open_image(browser: Browser, name: str) -> None:
    browser.value(f"viewer.openRecord(page.records.find((each) => each.image === {json.dumps(name)}))")
    browser.wait("viewer.ids && viewer.objects")


def place(browser: Browser, y: float, x: float) -> tuple[float, float]:
    """Where a pixel of the open image is on the screen, by its centre."""
    left, top, width, height, rows, columns = browser.value(
        "(() => { const r = byId('overlay').getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height, ...viewer.record.size]; })()"
    )
    scale = min(width / columns, height / rows)
    return (
        left + (width - columns * scale) / 2 + (x + 0.5) * scale,
        top + (height - rows * scale) / 2 + (y + 0.5) * scale,
    )


def drag(browser: Browser, start: tuple[int, int], end: tuple[int, int] | None = None) -> int:
    """Drag from one pixel (y, x) to another, or click; returns the number of selected objects."""
    browser.draw(place(browser, *start), place(browser, *(end or start)))
    return int(browser.value("viewer.selected.size"))


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
