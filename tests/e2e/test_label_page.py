"""The labelling page in a real Chromium, served by the command itself: keyboard, guess, undo, a page that is closed."""

import json
import signal
import subprocess

import numpy as np
import pytest
from playwright.sync_api import expect
from tests.browser.chromium import Visit, browsers
from tests.made_up.campaigns import write_campaign

from ferserve.training.active.pool import Pool
from ferserve.training.active.rank import rank_faces, select_faces
from ferserve.training.active.rounds import Round
from ferserve.training.active.selection import SelectionSettings
from ferserve.training.active.worthiness import WorthSettings
from ferserve.training.scorers import open_scorer

pytestmark = pytest.mark.e2e
FACES = 4


@pytest.fixture(scope="module")
def browser():
    with browsers() as start:
        yield start.start()


@pytest.fixture
def campaign(tmp_path, tiny_archive):
    folder = tmp_path / "campaign"
    write_campaign(folder, np.random.default_rng(0).integers(0, 256, (8, 24, 24, 1), dtype=np.uint8))
    pool, first = Pool(folder), Round(campaign=folder, number=1)
    rank_faces(pool, open_scorer(str(tiny_archive)), first, WorthSettings())
    select_faces(pool, first, SelectionSettings(faces=FACES), taken=set())
    return folder


@pytest.fixture
def serve(campaign, ferserve_command):
    """Starts the command; its process and address."""
    running = []

    def start(port=0):
        process = subprocess.Popen(
            [ferserve_command, "active", "label", str(campaign), "--port", str(port)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture
def visits(browser):
    """Opens the page as a labeller."""
    contexts = []

    def visit(address, labeller):
        contexts.append(browser.new_context(viewport={"width": 420, "height": 900}))
        visit = Visit(contexts[-1], address)
        visit.page.fill("#name", labeller)
        visit.page.press("#name", "Enter")
        expect(visit.page.locator("#desk")).to_be_visible()
        return visit

    yield visit
    for context in contexts:
        context.close()


def acts(campaign):
    path = campaign / "labels.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_round_is_labelled_by_keyboard(campaign, serve, visits):
    _, address = serve()
    chosen = Round(campaign=campaign, number=1).selected()
    visit = visits(address, "Ana")
    page = visit.page
    assert visit.violations() == []
    expect(page.locator("#count")).to_have_text(f"Round 1: 0 of {FACES}")
    expect(page.locator("#guess")).to_be_empty()
    assert page.locator("#face").evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
    page.keyboard.press("4")
    expect(page.locator("#status")).to_have_text("Saved: happy.")
    page.keyboard.press("g")
    expect(page.locator("#guess")).to_contain_text("The model says")
    page.keyboard.press("2")
    expect(page.locator("#count")).to_have_text(f"Round 1: 2 of {FACES}")
    expect(page.locator("#guess")).to_be_empty()
    page.keyboard.press("u")
    expect(page.locator("#count")).to_have_text(f"Round 1: 1 of {FACES}")
    page.keyboard.press("s")
    expect(page.locator("#status")).to_have_text("Put off. 1 put off.")
    page.click("[data-answer=none]")
    expect(page.locator("#count")).to_have_text(f"Round 1: 2 of {FACES}")
    page.keyboard.press("5")
    expect(page.locator("#count")).to_have_text(f"Round 1: 3 of {FACES}")
    page.keyboard.press("7")
    expect(page.locator("#status")).to_contain_text("All faces of this round are labelled")
    said = [(act["act"], act["face"], act["answer"], act["saw_guess"]) for act in acts(campaign)]
    assert said == [
        ("label", chosen[0], "happy", False), ("label", chosen[1], "disgust", True), ("undo", chosen[1], "", False),
        ("skip", chosen[1], "", False), ("label", chosen[2], "none", False), ("label", chosen[3], "sad", False),
        ("label", chosen[1], "neutral", False),
    ]  # fmt: skip
    assert visit.violations() == []
    assert visit.complaints == []
    assert visit.hosts == {address.split("/")[2]}


def test_a_page_that_is_closed_loses_nothing_and_the_next_one_goes_on(campaign, serve, visits):
    process, address = serve()
    first = visits(address, "Ana")
    first.page.keyboard.press("1")
    expect(first.page.locator("#count")).to_have_text(f"Round 1: 1 of {FACES}")
    first.page.close()
    process.kill()
    process.wait(timeout=60)
    _, address = serve()
    again = visits(address, "Ana")
    expect(again.page.locator("#count")).to_have_text(f"Round 1: 1 of {FACES}")
    other = visits(address, "Ben")
    expect(other.page.locator("#count")).to_have_text(f"Round 1: 0 of {FACES}")
    other.page.keyboard.press("1")
    expect(other.page.locator("#agreement")).to_contain_text("2 people have labelled; 1 faces by more than one")
    assert [(act["labeller"], act["answer"]) for act in acts(campaign)] == [("Ana", "angry"), ("Ben", "angry")]


def test_what_is_not_saved_is_said_and_asked_again(campaign, serve, visits):
    process, address = serve()
    visit = visits(address, "Ana")
    shown = visit.page.locator("#face").get_attribute("src")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    visit.page.keyboard.press("3")
    expect(visit.page.locator("#notice")).to_contain_text("Not saved. The server does not answer.")
    assert visit.page.locator("#face").get_attribute("src") == shown
    assert acts(campaign) == []
    serve(port=int(address.split(":")[2].rstrip("/")))
    visit.page.keyboard.press("3")
    expect(visit.page.locator("#status")).to_have_text("Saved: fear.")
    expect(visit.page.locator("#notice")).to_be_hidden()
    assert [act["answer"] for act in acts(campaign)] == ["fear"]
