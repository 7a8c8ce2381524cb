"""What goes wrong around the page: cameras refused, gateways restarted, networks lost, models gone."""

import base64
import json
import socket

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect
from tests.browser.chromium import Visit, browsers
from tests.browser.scenes import WIDTH_PX, jpeg, scene, write_film
from tests.browser.wires import wire

pytestmark = [pytest.mark.e2e, pytest.mark.long]
AGAIN_MS = 60_000
GIVEN = """([way, data]) => {
  const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  transfer.items.add(new File([bytes], "a.jpg", {type: "image/jpeg"}));
  const event = way === "drop" ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
  document.getElementById("stage").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "faces.mjpeg", faces=1, seconds=1.0, per_s=10)


@pytest.fixture(scope="module")
def start_browser():
    with browsers() as started:
        yield started.start


@pytest.fixture(scope="module")
def browser(start_browser, film):
    return start_browser(film)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def on_air(browser, address, *, model=None, context=None):
    """A visit whose camera runs and has boxes."""
    visit = Visit(context or browser.new_context(), address)
    visit.page.set_default_timeout(AGAIN_MS)
    if model:
        visit.page.select_option("#model", model)
    visit.page.click("#mode-camera")
    visit.page.click("#camera")
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    return visit


def notice(visit, text):
    return visit.page.locator(".notice", has_text=text)


def test_after_a_restart_of_the_gateway_the_camera_goes_on_by_itself(browser, start_gateway):
    port = free_port()
    first = start_gateway(f"--http-port={port}")
    visit = on_air(browser, first.rest)
    assert first.stop() == 0
    expect(notice(visit, "Trying again")).to_be_visible(timeout=AGAIN_MS)
    expect(visit.page.locator(".box")).to_have_count(0)
    start_gateway(f"--http-port={port}")
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    expect(notice(visit, "Trying again")).to_have_count(0, timeout=AGAIN_MS)


def test_a_model_that_is_gone_after_a_restart_is_said_and_the_default_goes_on(browser, start_gateway, tiny_archive):
    port = free_port()
    first = start_gateway(f"--http-port={port}", "--model=default", f"--model={tiny_archive}")
    visit = on_air(browser, first.rest, model="tiny")
    assert first.stop() == 0
    start_gateway(f"--http-port={port}")
    expect(notice(visit, "The model tiny is not loaded any more")).to_be_visible(timeout=AGAIN_MS)
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    assert visit.page.locator("#model").input_value() == "mobilenet"


def test_a_network_that_was_lost_without_a_word_comes_back_by_itself(browser, served):
    with wire(int(served.rest.rpartition(":")[2])) as between:
        visit = on_air(browser, f"http://127.0.0.1:{between.port}")
        between.cut()
        expect(notice(visit, "Trying again")).to_be_visible(timeout=AGAIN_MS)
        between.mend()
        expect(notice(visit, "Trying again")).to_have_count(0, timeout=AGAIN_MS)
        expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)


def test_a_refused_camera_and_a_missing_one_are_said_kindly_and_photos_still_work(start_browser, film, served):
    photo = {"name": "face.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.0, faces=1))}
    for camera, words in ((film, "The camera was refused"), (None, "No camera was found")):
        visit = Visit(start_browser(camera, allows_camera=camera is None).new_context(), served.rest)
        visit.page.click("#mode-camera")
        visit.page.click("#camera")
        expect(notice(visit, words)).to_be_visible()
        assert visit.violations() == []
        visit.page.click("#mode-photos")
        visit.page.set_input_files("#files", [photo])
        expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)


def test_a_huge_photo_is_said_kindly_and_the_next_one_goes_on(browser, served, tmp_path):
    huge, good = tmp_path / "huge.png", tmp_path / "good.jpg"
    cv2.imwrite(str(huge), np.zeros((9000, 9000), np.uint8))
    good.write_bytes(jpeg(scene(0.0, faces=1)))
    visit = Visit(browser.new_context(), served.rest)
    visit.page.set_input_files("#files", [huge, good])
    expect(notice(visit, "huge.png is too large for this gateway")).to_be_visible(timeout=AGAIN_MS)
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)


def test_the_keyboard_alone_reaches_the_heat_map(browser, served):
    visit = Visit(browser.new_context(), served.rest)
    visit.page.set_input_files(
        "#files", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0, faces=1))}]
    )
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        if "Where did it look" in (visit.page.evaluate("document.activeElement.textContent") or ""):
            break
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".heat-words")).to_contain_text("where the model looked", timeout=AGAIN_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1280, 360])
def test_no_view_has_a_violation_or_a_complaint_in_any_colour_or_width(browser, served, scheme, width_px):
    context = browser.new_context(viewport={"width": width_px, "height": 780}, color_scheme=scheme)
    visit = Visit(context, served.rest)
    assert visit.violations() == []
    visit.page.set_input_files("#files", [{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0))}])
    expect(visit.page.locator(".box")).to_have_count(4, timeout=AGAIN_MS)
    assert visit.violations() == []
    visit.page.click("#mode-camera")
    assert visit.violations() == []
    visit.page.click("#camera")
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    assert visit.violations() == []
    status = Visit(context, f"{served.admin}/status")
    expect(status.page.locator("#state")).to_have_text("ready", timeout=AGAIN_MS)
    expect(status.page.locator("#models tr")).to_have_count(1)
    expect(status.page.locator("#stages tr")).to_have_count(6)
    assert status.violations() == []
    for one in (visit, status):
        width = one.page.evaluate("document.documentElement.scrollWidth")
        assert width <= width_px, "the page must not be wider than the screen"
        assert one.complaints == []
        assert len(one.hosts) == 1
    context.close()


def test_of_a_face_held_still_the_heat_map_is_drawn_and_the_camera_goes_on(browser, served):
    visit = on_air(browser, served.rest)
    visit.page.locator("#faces button").first.click()
    expect(visit.page.locator(".heat-words")).to_contain_text("where the model looked", timeout=AGAIN_MS)
    expect(visit.page.locator("#photo")).to_be_visible()
    assert visit.page.locator("#photo").evaluate("picture => picture.naturalWidth") == WIDTH_PX
    assert visit.page.locator("#heat").evaluate("canvas => canvas.width") == WIDTH_PX
    assert visit.violations() == []
    answered = len(visit.replies)
    visit.page.click("#freeze")
    expect(visit.page.locator("#photo")).to_be_hidden()
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    assert len(visit.replies) > answered
    assert visit.complaints == []


def test_a_photo_is_looked_at_again_and_a_camera_goes_on_with_another_model(browser, start_gateway, tiny_archive):
    gateway = start_gateway("--model=default", f"--model={tiny_archive}")
    visit = Visit(browser.new_context(), gateway.rest)
    photo = {"name": "face.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.0, faces=1))}
    visit.page.set_input_files("#files", [photo])
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    scores = visit.page.locator(".scores").inner_text()
    visit.page.select_option("#model", "tiny")
    expect(visit.page.locator(".scores")).not_to_have_text(scores, use_inner_text=True, timeout=AGAIN_MS)
    assert [row["model"] for row in downloaded_rows(visit)] == ["mobilenet", "tiny"]

    visit.page.click("#mode-camera")
    visit.page.click("#camera")
    for model in ("mobilenet", "tiny"):
        visit.page.select_option("#model", model)
        answered = len(visit.replies)
        visit.page.wait_for_function("count => document.querySelectorAll('.box').length === count", arg=1)
        while len(visit.replies) < answered + 3:
            visit.page.wait_for_timeout(50)
        assert json.loads(visit.replies[-1])["analysis"]["model"]["name"] == model
    assert {row["model"] for row in downloaded_rows(visit)} == {"mobilenet", "tiny"}
    assert visit.complaints == []


def downloaded_rows(visit):
    with visit.page.expect_download() as download:
        visit.page.click("#json")
    return json.loads(download.value.path().read_text())


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_may_be_dropped_or_pasted(browser, served, way):
    visit = Visit(browser.new_context(), served.rest)
    data = base64.b64encode(jpeg(scene(0.0, faces=1))).decode()
    visit.page.evaluate(GIVEN, [way, data])
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    assert visit.complaints == []


def test_a_browser_whose_workers_have_no_canvas_sends_frames_all_the_same(browser, served):
    context = browser.new_context()
    context.add_init_script("delete globalThis.OffscreenCanvas")
    visit = on_air(browser, served.rest, context=context)
    answered = len(visit.replies)
    visit.page.wait_for_function("document.querySelector('#answered').hidden === false")
    while len(visit.replies) < answered + 3:
        visit.page.wait_for_timeout(50)
    assert visit.complaints == []


def given_photo(visit):
    photo = {"name": "face.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.0, faces=1))}
    visit.page.set_input_files("#files", [photo])


def test_a_photo_that_met_no_gateway_is_answered_as_soon_as_there_is_one(browser, start_gateway):
    port = free_port()
    first = start_gateway(f"--http-port={port}")
    visit = Visit(browser.new_context(), first.rest)
    expect(visit.page.locator("#model option")).to_have_count(1)
    assert first.stop() == 0
    given_photo(visit)
    expect(notice(visit, "The gateway does not answer")).to_be_visible(timeout=AGAIN_MS)
    assert visit.violations() == []
    start_gateway(f"--http-port={port}")
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    expect(notice(visit, "The gateway does not answer")).to_have_count(0)


def test_a_photo_for_a_model_that_is_gone_is_answered_by_the_default_one(browser, start_gateway, tiny_archive):
    port = free_port()
    first = start_gateway(f"--http-port={port}", "--model=default", f"--model={tiny_archive}")
    visit = Visit(browser.new_context(), first.rest)
    visit.page.select_option("#model", "tiny")
    assert first.stop() == 0
    start_gateway(f"--http-port={port}")
    given_photo(visit)
    expect(notice(visit, "The model tiny is not loaded any more")).to_be_visible(timeout=AGAIN_MS)
    expect(visit.page.locator(".box")).to_have_count(1, timeout=AGAIN_MS)
    assert visit.page.locator("#model").input_value() == "mobilenet"
    assert [row["model"] for row in downloaded_rows(visit)] == ["mobilenet"]
