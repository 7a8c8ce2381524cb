"""The pictures of the pages in the documentation: `python -m tests.browser docs/images`.

Starts a gateway with the default archive and detector, and a Chromium whose camera shows a made-up scene.
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect
from tests.browser.chromium import Browsers, Visit, browsers
from tests.browser.scenes import jpeg, scene, with_a_blurred_face, write_film

DESKTOP, PHONE = (1200, 760), (390, 780)
WAIT_MS = 60_000
QUALITY = 80


def main(out: Path) -> None:
    command = [str(Path(sys.executable).with_name("ferserve")), "serve", "--grpc-port=0", "--http-port=0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "--admin-port=0"], stdout=subprocess.PIPE, text=True) as gateway,
        browsers() as started,
    ):
        assert gateway.stdout is not None
        addresses = dict(line.strip().split(" ", 1) for line in (gateway.stdout.readline() for _ in range(3)))
        try:
            _pictures(started, write_film(Path(folder) / "faces.mjpeg"), addresses["REST"], addresses["admin"], out)
        finally:
            gateway.terminate()


def _pictures(started: Browsers, film: Path, page: str, admin: str, out: Path) -> None:
    browser = started.start(film)
    photo = {"name": "scene.jpg", "mimeType": "image/jpeg", "buffer": jpeg(with_a_blurred_face(scene(1.1, faces=3)))}
    for name, size, scheme in (("photo-light", DESKTOP, "light"), ("photo-dark-phone", PHONE, "dark")):
        visit = _visit(browser, page, size, scheme)
        visit.page.set_input_files("#files", [photo])
        expect(visit.page.locator(".box")).to_have_count(3, timeout=WAIT_MS)
        visit.page.locator("#faces button").first.click()
        expect(visit.page.locator(".heat-words").first).to_contain_text("looked", timeout=WAIT_MS)
        visit.page.evaluate("scrollTo(0, 0)")
        _save(visit, out / f"page-{name}.jpg")
    for name, size, scheme in (("live-dark", DESKTOP, "dark"), ("live-light-phone", PHONE, "light")):
        visit = _visit(browser, page, size, scheme)
        visit.page.click("#mode-camera")
        visit.page.click("#camera")
        expect(visit.page.locator(".box")).to_have_count(4, timeout=WAIT_MS)
        visit.page.wait_for_timeout(3000)
        _save(visit, out / f"page-{name}.jpg")
        if size is DESKTOP:
            for status_name, status_size, status_scheme in (
                ("light", DESKTOP, "light"),
                ("dark-phone", PHONE, "dark"),
            ):
                status = _visit(browser, f"{admin}/status", status_size, status_scheme)
                expect(status.page.locator("#stages tr")).to_have_count(6, timeout=WAIT_MS)
                status.page.wait_for_timeout(12_000)
                _save(status, out / f"status-{status_name}.jpg")
        visit.page.close()


def _visit(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> Visit:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    return Visit(context, address)


def _save(visit: Visit, path: Path) -> None:
    image = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
    image.save(path, quality=QUALITY, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
