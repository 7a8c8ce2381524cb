"""The page in a real Chromium: a photo and a camera whose film is a made-up scene; boxes land where the faces are."""

import json

import pytest
from playwright.sync_api import expect
from tests.browser.chromium import Visit, browsers, worst_overlap
from tests.browser.scenes import HEIGHT_PX, WIDTH_PX, jpeg, scene, with_a_blurred_face, write_film

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.labels import LABELS
from ferserve.faces.types import Box
from ferserve.serving.keys import sha256_of

pytestmark = pytest.mark.e2e
GOOD_KEY, WRONG_KEY = "fer_" + "g" * 43, "fer_" + "w" * 43
SLOW_MS = 20_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    film = write_film(tmp_path_factory.mktemp("film") / "faces.mjpeg", faces=2, seconds=1.0, per_s=15)
    with browsers() as start:
        yield start.start(film)


@pytest.fixture
def visit(browser, served):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, served.rest)
    expect(visit.page.locator("#model option")).to_have_count(1)
    yield visit
    context.close()


def detected(data):
    """The boxes that the detector finds without any gateway."""
    return [face.box for face in default_detector().detect(decode(data, DecodeLimits()).pixels)]


def test_boxes_and_scores_of_a_photo_stand_on_its_faces(visit):
    photo = jpeg(scene(0.4))
    visit.page.set_input_files("#files", [{"name": "scene.jpg", "mimeType": "image/jpeg", "buffer": photo}])
    expected = detected(photo)
    expect(visit.page.locator(".box")).to_have_count(len(expected))
    assert len(expected) == 4
    assert worst_overlap(visit.boxes("#photo", WIDTH_PX, HEIGHT_PX), expected) > 0.95
    assert visit.page.locator(".scores").first.locator("li").count() == len(LABELS)
    expect(visit.page.locator("#summary")).to_contain_text("4 faces")
    assert visit.violations() == []

    with visit.page.expect_download() as download:
        visit.page.click("#csv")
    header, *rows = download.value.path().read_text().splitlines()
    assert header.split(",")[:2] == ["source", "time"]
    assert [row.split(",")[0] for row in rows] == ["scene.jpg"] * 4
    with visit.page.expect_download() as download:
        visit.page.click("#json")
    faces = json.loads(download.value.path().read_text())
    assert sum(faces[0][label] for label in LABELS) == pytest.approx(1, abs=1e-3)

    visit.page.locator("#faces button").first.click()
    expect(visit.page.locator(".heat-words").first).to_contain_text("where the model looked", timeout=SLOW_MS)
    assert visit.page.locator("#heat").evaluate("canvas => canvas.width") == WIDTH_PX
    assert visit.complaints == []


def test_a_poor_picture_of_a_face_is_shown_as_such(visit):
    photo = jpeg(with_a_blurred_face(scene(0.4, faces=3)))
    visit.page.set_input_files("#files", [{"name": "blur.jpg", "mimeType": "image/jpeg", "buffer": photo}])
    expect(visit.page.locator(".box")).to_have_count(3)
    expect(visit.page.locator(".box.poor")).to_have_count(1)
    assert "blurred" in visit.page.locator(".box.poor").get_attribute("aria-label")
    expect(visit.page.locator(".card .badge", has_text="blurred")).to_have_count(1)
    assert visit.violations() == []


def test_what_is_no_picture_is_said_kindly_and_the_next_one_goes_on(visit):
    files = [
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"},
        {"name": "half.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.0))[:2000]},
        {"name": "good.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.0, faces=1))},
    ]
    visit.page.set_input_files("#files", files)
    expect(visit.page.locator(".box")).to_have_count(1)
    expect(visit.page.locator(".notice")).to_have_count(2)
    expect(visit.page.locator(".notice").nth(0)).to_contain_text("notes.txt is no picture that can be read here")
    expect(visit.page.locator(".notice").nth(1)).to_contain_text("half.jpg seems to be damaged")
    visit.page.locator(".notice button").first.click()
    expect(visit.page.locator(".notice")).to_have_count(1)


def test_boxes_of_the_camera_stand_on_the_faces_of_the_frames_that_were_sent(visit, served):
    visit.page.click("#mode-camera")
    assert visit.violations() == []
    visit.page.click("#camera")
    expect(visit.page.locator(".box")).to_have_count(2)
    visit.page.click("#freeze")
    expect(visit.page.locator("#freeze")).to_have_text("Go on")
    replies = [json.loads(reply) for reply in visit.replies]
    assert replies
    for reply in replies[-3:]:
        expected = detected(visit.sent[reply["id"]])
        boxes = [Box(**face["box"]) for face in reply["analysis"]["faces"]]
        assert worst_overlap(boxes, expected) > 0.75
        assert len({face["track_id"] for face in reply["analysis"]["faces"]}) == len(boxes)
    shown = visit.boxes("#photo", WIDTH_PX, HEIGHT_PX)
    assert any(worst_overlap(shown, detected(sent)) > 0.7 for sent in visit.sent.values())
    expect(visit.page.locator("#timings")).to_contain_text("frames/s")
    assert visit.violations() == []
    assert visit.complaints == []
    assert visit.hosts == {served.rest.removeprefix("http://")}


@pytest.fixture
def for_holders(start_gateway, tmp_path):
    """A gateway that asks for keys, and says in its log what it is asked."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "page"\nsha256 = "{sha256_of(GOOD_KEY)}"\npurpose = "personal"\n')
    config = tmp_path / "ferserve.toml"
    config.write_text(f'[access]\nkeys_file = "{keys}"\n[log]\nrequests = true\n')
    return start_gateway("--config", str(config))


def test_a_gateway_with_keys_is_used_by_who_types_one_in(browser, for_holders):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, for_holders.rest)
    addresses = []
    visit.page.on("request", lambda request: addresses.append(request.url))
    visit.page.on("websocket", lambda socket: addresses.append(socket.url))
    key = visit.page.locator("#key")
    expect(key).to_be_focused()
    assert visit.violations() == []
    for typed in (WRONG_KEY, GOOD_KEY):
        key.fill(typed)
        key.press("Enter")
        if typed == WRONG_KEY:
            expect(visit.page.locator("#key-words")).to_contain_text("does not know this key")
    expect(visit.page.locator("#model option")).to_have_count(1)
    expect(key).to_be_hidden()
    photo = {"name": "scene.jpg", "mimeType": "image/jpeg", "buffer": jpeg(scene(0.4, faces=1))}
    visit.page.set_input_files("#files", [photo])
    expect(visit.page.locator(".box")).to_have_count(1)
    visit.page.click("#mode-camera")
    visit.page.click("#camera")
    expect(visit.page.locator(".box")).to_have_count(2)
    stored = visit.page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert stored == [0, 0, "", f"{for_holders.rest}/"]
    refused = [text for text in visit.complaints if "401" not in text]  # the browser's own words about two requests
    assert refused == []
    context.close()
    assert for_holders.stop() == 0
    for seen in (*addresses, for_holders.log.read_text()):
        assert GOOD_KEY not in seen
        assert WRONG_KEY not in seen
