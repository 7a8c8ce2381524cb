"""The system's Chromium with a film for a camera, and what is read off its pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect, sync_playwright

from ferserve.faces.types import Box

PATIENCE_MS = 30_000
"""For whatever the page waits for: the machine may be busy with other tests."""


@contextmanager
def browsers() -> Iterator["Browsers"]:
    """Starts browsers, and ends them; one at a time of these, since Playwright's loop occupies its thread."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield Browsers(playwright)


class Browsers:
    """What starts headless browsers."""

    def __init__(self, playwright: Playwright) -> None:
        self._playwright = playwright

    def start(self, film: Path | None = None, *, allows_camera: bool = True) -> Browser:
        """A browser; `film` is what its camera shows, None for one without a camera."""
        path = shutil.which("chromium")
        assert path is not None, "expected chromium: see tests/system_packages.sh"
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        if film is not None:
            arguments += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
        if allows_camera:
            arguments.append("--use-fake-ui-for-media-stream")
        return self._playwright.chromium.launch(executable_path=path, args=arguments)


class Visit:
    """A page, what it complained about, and the frames of its streams."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.sent: dict[str, bytes] = {}
        self.replies: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("websocket", self._on_websocket)
        self.page.goto(address)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_websocket(self, socket: Any) -> None:
        self.hosts.add(socket.url.split("/")[2])
        socket.on("framesent", self._on_frame)
        socket.on("framereceived", self._on_reply)

    def _on_frame(self, message: bytes | str) -> None:
        if isinstance(message, str):  # the options
            return
        self.sent[str(int.from_bytes(message[:8], "big"))] = message[8:]

    def _on_reply(self, text: str) -> None:
        self.replies.append(text)

    def violations(self) -> list[str]:
        """What axe finds, in a line each."""
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]

    def boxes(self, picture: str, width_px: int, height_px: int) -> list[Box]:
        """Where the boxes on the screen lie, in pixels of the picture under them."""
        under = _rectangle(self.page.locator(picture))
        x_px, y_px = under["width"] / width_px, under["height"] / height_px
        return [
            Box(
                x0=(box["x"] - under["x"]) / x_px,
                y0=(box["y"] - under["y"]) / y_px,
                x1=(box["x"] + box["width"] - under["x"]) / x_px,
                y1=(box["y"] + box["height"] - under["y"]) / y_px,
            )
            for box in map(_rectangle, self.page.locator(".box").all())
        ]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(width, 0) * max(height, 0)
    return shared / (a.width_px * a.height_px + b.width_px * b.height_px - shared)


def worst_overlap(boxes: list[Box], expected: list[Box]) -> float:
    """Of the expected box that is covered worst; 0 where the counts differ."""
    if len(boxes) != len(expected):
        return 0.0
    return min(max(overlap(box, one) for box in boxes) for one in expected)


def _rectangle(locator: Locator) -> Any:
    found = locator.bounding_box()
    assert found is not None
    return found
