"""How fast the page is live, and where the CPU time goes: `python -m tests.browser.speed`.

A Chromium whose camera plays a film of 640 x 480 at 30 frames/s looks at a gateway on the same machine. The page counts
for itself what it shows and keeps its last frames; Playwright is asked before and after only, for it would copy each
frame.
"""

import base64
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect
from tests.browser.chromium import PATIENCE_MS, browsers, worst_overlap
from tests.browser.processes import all_processes, command_of, cpu_s, descendants, machine_busy_s
from tests.browser.scenes import write_raw_film

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.types import Box
from ferserve.serving.benchmarks.gateways import own_gateway

WARM_UP_S = 4.0
KEPT_FRAMES = 20
COUNTING = """
  const mostKept = KEPT;
  globalThis.seen = {shownMs: [], sent: [], replies: []};
  const keep = (list, one) => { list.push(one); if (list.length > mostKept) list.shift(); };
  const {transferFromImageBitmap} = ImageBitmapRenderingContext.prototype;
  ImageBitmapRenderingContext.prototype.transferFromImageBitmap = function (bitmap) {
    seen.shownMs.push(performance.now());
    return transferFromImageBitmap.call(this, bitmap);
  };
  const {send} = WebSocket.prototype;
  WebSocket.prototype.send = function (message) {
    if (typeof message === "string") this.addEventListener("message", ({data}) => keep(seen.replies, data));
    else keep(seen.sent, message);
    return send.call(this, message);
  };
""".replace("KEPT", str(3 * KEPT_FRAMES))


@dataclass(frozen=True, kw_only=True)
class LiveSpeed:
    """What a viewer saw, and what it cost.

    `cpu_ms` is CPU time a frame shown, by kind of process; `others_cores` is what everything else on the machine used;
    `overlaps` has for each frame kept the face that its reply covers worst, by the detector without a gateway.
    """

    frames_s: float
    longest_gap_ms: float
    cpu_ms: dict[str, float]
    cores: float
    others_cores: float
    overlaps: list[float]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in self.cpu_ms.items())
        return (
            f"{self.frames_s:.1f} frames/s shown, longest gap {self.longest_gap_ms:.0f} ms\n"
            f"CPU a frame: {sum(self.cpu_ms.values()):.1f} ms ({parts})\n"
            f"cores: {self.cores:.2f} by gateway and browser, {self.others_cores:.2f} by others\n"
            f"boxes over the detector's: worst face of {len(self.overlaps)} frames {min(self.overlaps):.2f}"
        )


def measure(*, faces: int = 4, seconds: float = 10.0) -> LiveSpeed:
    """Look on for a while."""
    with _live_page(faces) as (page, gateway_pid, browser_pid):
        time.sleep(WARM_UP_S)
        page.evaluate("seen.shownMs.length = 0")
        pids = descendants(browser_pid) | {gateway_pid}
        before, busy_before_s, began_s = cpu_s(pids), machine_busy_s(), time.perf_counter()
        time.sleep(seconds)
        spent, busy_s, took_s = cpu_s(pids), machine_busy_s() - busy_before_s, time.perf_counter() - began_s
        spent.subtract(before)
        shown_ms = page.evaluate("seen.shownMs")
        overlaps = _overlaps(page)
        kinds: Counter[str] = Counter()
        for pid, pid_s in spent.items():
            kinds["gateway" if pid == gateway_pid else _kind(pid)] += pid_s
    used_s = sum(kinds.values())
    return LiveSpeed(
        frames_s=len(shown_ms) / took_s,
        longest_gap_ms=max(later - one for one, later in pairwise(shown_ms)),
        cpu_ms={name: 1000 * one_s / len(shown_ms) for name, one_s in kinds.most_common() if one_s >= 0.01 * used_s},
        cores=used_s / took_s,
        others_cores=max(busy_s - used_s, 0) / took_s,
        overlaps=overlaps,
    )


@contextmanager
def _live_page(faces: int) -> Iterator[tuple[Page, int, int]]:
    """A page that is live, and the processes of its gateway and its browser."""
    with tempfile.TemporaryDirectory() as folder, own_gateway() as gateway, browsers() as started:
        film = write_raw_film(Path(folder) / "faces.y4m", faces=faces)
        browser = started.start(film)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_init_script(COUNTING)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{gateway.rest}")
        expect(page.locator("#model option")).to_have_count(1)
        page.click("#mode-camera")
        page.click("#camera")
        expect(page.locator(".box")).to_have_count(faces)
        yield page, gateway.pid, _browser_of(film)
        browser.close()


def _browser_of(film: Path) -> int:
    """The browser's first process: the others are told of its kind."""
    mine = [pid for pid in all_processes() if any(word.endswith(str(film)) for word in command_of(pid))]
    return next(pid for pid in mine if not any(word.startswith("--type=") for word in command_of(pid)))


def _kind(pid: int) -> str:
    named = [word.split("=")[1] for word in command_of(pid) if word.startswith(("--type=", "--utility-sub-type="))]
    return named[-1].partition(".")[0] if named else "browser"


def _overlaps(page: Page) -> list[float]:
    """Of the last frames that have a reply, how well its boxes cover the faces that the detector finds by itself."""
    sent = page.evaluate("seen.sent.map((message) => btoa(String.fromCharCode(...message)))")
    frames = {str(int.from_bytes(data[:8], "big")): data[8:] for data in map(base64.b64decode, sent)}
    replies: list[dict[str, Any]] = [json.loads(text) for text in page.evaluate("seen.replies")]
    answered = [reply for reply in replies if reply.get("id") in frames][-KEPT_FRAMES:]
    return [worst_overlap(_boxes(reply), _found(frames[reply["id"]])) for reply in answered]


def _boxes(reply: dict[str, Any]) -> list[Box]:
    return [Box(**face["box"]) for face in reply["analysis"]["faces"]]


def _found(data: bytes) -> list[Box]:
    return [face.box for face in default_detector().detect(decode(data, DecodeLimits()).pixels)]


if __name__ == "__main__":
    print(measure())  # noqa: T201 - a program
