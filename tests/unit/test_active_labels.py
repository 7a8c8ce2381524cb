"""Labels on the disk, agreement by hand, and the desk that the page talks to."""

import http.client
import json
import threading
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from ferserve.training.active.agreement import cohen_kappa, fleiss_kappa, measure_agreement
from ferserve.training.active.desk import Desk, RefusedError
from ferserve.training.active.labels import Act, Journal, consensus
from ferserve.training.active.page import HEADERS, LabelServer
from ferserve.training.active.pool import Pool
from ferserve.training.active.rounds import Round
from ferserve.training.data.errors import DataError

FACES = [f"000000-{row:04d}" for row in range(4)]


def _label(face, labeller, answer):
    return Act(act="label", round=1, face=face, labeller=labeller, answer=answer)


def _undo(face, labeller):
    return Act(act="undo", round=1, face=face, labeller=labeller)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path, is_face=FACES.__contains__)


def _again(journal):
    return Journal(journal.path.parent, is_face=FACES.__contains__)


def test_an_act_is_on_the_disk_when_append_returns(journal):
    journal.append(_label(FACES[0], "Ana", "happy"))
    journal.append(_label(FACES[0], "Ben", "sad"))
    assert _again(journal).acts == journal.acts
    assert _again(journal).answers() == {FACES[0]: {"Ana": "happy", "Ben": "sad"}}


def test_undo_takes_back_one_act_at_a_time(journal):
    for act in (
        _label(FACES[0], "Ana", "happy"),
        _label(FACES[1], "Ana", "fear"),
        _label(FACES[1], "Ben", "fear"),
    ):
        journal.append(act)
    assert journal.last_of("Ana").face == FACES[1]
    journal.append(_undo(FACES[1], "Ana"))
    assert journal.last_of("Ana").face == FACES[0]
    journal.append(_undo(FACES[0], "Ana"))
    assert journal.last_of("Ana") is None
    journal.append(_label(FACES[0], "Ana", "neutral"))
    assert _again(journal).answers() == {FACES[1]: {"Ben": "fear"}, FACES[0]: {"Ana": "neutral"}}


def test_a_line_that_a_crash_cut_short_is_cut_off(journal):
    journal.append(_label(FACES[0], "Ana", "happy"))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"act": "label", "rou')
    again = _again(journal)
    assert again.acts == journal.acts
    again.append(_label(FACES[1], "Ana", "sad"))
    assert len(_again(journal).acts) == 2
    assert journal.path.read_bytes().startswith(whole)


def test_two_pages_of_one_campaign_lose_nothing_of_each_other(journal):
    other = _again(journal)
    journal.append(_label(FACES[0], "Ana", "happy"))
    other.append(_label(FACES[1], "Ben", "sad"))
    journal.append(_label(FACES[2], "Ana", "fear"))
    assert [act.face for act in _again(journal).acts] == FACES[:3]
    assert journal.acts == _again(journal).acts
    assert len(other.acts) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"act": "label", "round": 1, "face": "000009-0001", "labeller": "Ana", "answer": "happy"}',
         r"line 2: expected a face of this campaign, such as 000012-0034, got '000009-0001'"),
        ('{"act": "label", "round": 1, "face": "000000-0001", "labeller": "Ana", "answer": "joy"}',
         r"line 2: expected an answer of angry, .*, none, got 'joy'"),
        ('{"act": "guess", "round": 1, "face": "000000-0001", "labeller": "Ana"}',
         r"line 2: expected an act of label, skip or undo, got 'guess'"),
        ("happy", r"line 2: expected a label that `ferserve active label` wrote"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(journal, line, message):
    journal.append(_label(FACES[0], "Ana", "happy"))
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        _again(journal)


def test_consensus():
    assert consensus(["happy", "sad", "happy"]) == "happy"
    assert consensus(["happy", "sad"]) is None
    assert consensus([]) is None


def test_cohen_by_hand():
    # Both say yes 20 times, no 15 times, 5 and 10 apart: observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    first = ["y"] * 20 + ["y"] * 5 + ["n"] * 10 + ["n"] * 15
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(["y"], ["y"]) is None
    with pytest.raises(ValueError, match="expected the same faces of both"):
        cohen_kappa(["y"], [])


def test_fleiss_on_the_published_example():
    # Fourteen raters, ten subjects, five categories: kappa 0.210 (Fleiss 1971's method, as Wikipedia works it).
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.asarray(counts)) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(np.zeros((0, 2), np.int64)) is None


def test_agreement_counts_only_what_several_people_labelled():
    found = measure_agreement(
        {"a": {"Ana": "happy", "Ben": "happy"}, "b": {"Ana": "sad", "Ben": "fear"}, "c": {"Ana": "sad"}}
    )
    assert found.faces == 2
    [pair] = found.pairs
    # Observed 1/2; by chance happy 1/2 * 1/2 alone.
    assert (pair.faces, pair.agreement, pair.kappa) == (2, 0.5, pytest.approx(1 / 3))


@pytest.fixture
def campaign(tmp_path):
    """A ranked and selected round of four grey faces; of the pictures only the first is still there."""
    source = tmp_path / "web"
    source.mkdir()
    assert cv2.imwrite(str(source / "0.png"), np.full((60, 60, 3), 50, np.uint8))
    folder = tmp_path / "campaign"
    (folder / "shards").mkdir(parents=True)
    crops = np.stack([np.full((24, 24, 1), 50 + 20 * row, np.uint8) for row in range(4)])
    np.savez(
        folder / "shards" / "000000.npz",
        crops=crops, bits=np.zeros((4, 4), np.uint64), squares=np.full((4, 2), 30 + 30j) * [[1, 20 / (30 + 30j)]],
    )  # fmt: skip
    rows = [{"picture": f"{row}.png", "face": 0, "status": "kept", "id": FACES[row]} for row in range(4)]
    (folder / "shards" / "000000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"size_px": 24, "channels": 1, "box_scale": 1.0, "eye_y": 0.36, "eye_distance": 0.44}
    (folder / "web.json").write_text(json.dumps({"settings": {"preprocess": spec, "source": str(source)}}))
    first = Round(campaign=folder, number=1)
    first.ranked(0).parent.mkdir(parents=True)
    np.savez(first.ranked(0), scores=np.eye(7, dtype=np.float32)[:4])
    first.rank_file.write_text("{}")
    first.selection_file.write_text(json.dumps({"faces": FACES}))
    return folder


def _desk(campaign):
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Desk(Pool(campaign), Round(campaign=campaign, number=1), now=lambda: now)


def test_faces_come_in_order_and_those_put_off_come_last(campaign):
    desk = _desk(campaign)
    assert desk.standing("Ana").face == FACES[0]
    desk.skip("Ana", FACES[0])
    desk.label("Ana", FACES[1], "sad", saw_guess=False)
    assert (desk.standing("Ana").face, desk.standing("Ana").skipped) == (FACES[2], 1)
    desk.label("Ana", FACES[2], "sad", saw_guess=True)
    desk.label("Ana", FACES[3], "none", saw_guess=False)
    assert desk.standing("Ana").face == FACES[0]
    desk.label("Ana", FACES[0], "happy", saw_guess=False)
    standing = desk.standing("Ana")
    assert (standing.face, standing.done, standing.total) == (None, 4, 4)
    assert desk.standing("Ben").face == FACES[0]
    assert json.loads((campaign / "labels.jsonl").read_text().splitlines()[2]) == {
        "act": "label", "round": 1, "face": FACES[2], "labeller": "Ana", "answer": "sad", "saw_guess": True,
        "time": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip


def test_an_undo_brings_the_face_back_even_after_a_skip(campaign):
    desk = _desk(campaign)
    desk.skip("Ana", FACES[0])
    assert desk.undo("Ana") == FACES[0]
    assert desk.standing("Ana").face == FACES[0]
    assert not desk.standing("Ana").can_undo
    with pytest.raises(RefusedError, match="undo: expected something that Ana said in this round, found nothing"):
        desk.undo("Ana")


def test_labellers_agreement_is_told(campaign):
    desk = _desk(campaign)
    for labeller, answers in (("Ana", ("happy", "sad", "fear")), ("Ben", ("happy", "fear", "fear"))):
        for face, answer in zip(FACES, answers, strict=False):
            desk.label(labeller, face, answer, saw_guess=False)
    standing = desk.standing("Ana")
    assert (standing.labellers, standing.shared) == (2, 3)
    # Fleiss: mean agreement 2/3; shares 1/3, 1/6, 1/2: by chance 14/36.
    assert standing.fleiss == pytest.approx((2 / 3 - 14 / 36) / (1 - 14 / 36))


def test_pictures_show_the_surroundings_or_the_crop(campaign):
    desk = _desk(campaign)
    for face, grey in ((FACES[0], 50), (FACES[3], 110)):
        shown = cv2.imdecode(np.frombuffer(desk.picture(face), np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape == (320, 320, 3)
        assert (shown == grey).all()
    assert desk.guess(FACES[2]) == {"label": "fear", "score": 1.0}


def test_what_is_not_meant_is_refused(campaign):
    desk = _desk(campaign)
    with pytest.raises(RefusedError, match="face: expected one of round 1, got '000000-0009'"):
        desk.label("Ana", "000000-0009", "happy", saw_guess=False)
    with pytest.raises(RefusedError, match=r"answer: expected one of angry, .* got 'joy'"):
        desk.label("Ana", FACES[0], "joy", saw_guess=False)
    with pytest.raises(RefusedError, match="labeller: expected a name"):
        desk.label(" ", FACES[0], "happy", saw_guess=False)
    Round(campaign=campaign, number=1).selection_file.write_text(json.dumps({"faces": ["000001-0000"]}))
    with pytest.raises(DataError, match="expected faces of this campaign, got '000001-0000'"):
        _desk(campaign)


@pytest.fixture
def server(campaign):
    with LabelServer(_desk(campaign), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _request(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def _post(server, path, value, **headers):
    answer, data = _request(server, "POST", path, json.dumps(value), **{"Content_Type": "application/json"} | headers)
    return answer.status, json.loads(data)


def test_the_page_is_served_with_a_strict_policy(server):
    for name in ("", "label.js", "label.css", "icon.svg"):
        answer, data = _request(server, "GET", f"/{name}")
        assert (answer.status, bool(data)) == (200, True)
        for header, value in HEADERS.items():
            assert answer.getheader(header) == value
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert _request(server, "GET", "/../labels.jsonl")[0].status == 404


def test_acts_over_http(server, campaign):
    status, standing = _post(server, "/label", {"labeller": "Ana", "face": FACES[0], "answer": "happy"})
    assert (status, standing["face"], standing["done"]) == (200, FACES[1], 1)
    assert Journal(campaign, is_face=FACES.__contains__).answers() == {FACES[0]: {"Ana": "happy"}}
    status, standing = _post(server, "/undo", {"labeller": "Ana"})
    assert (status, standing["face"]) == (200, FACES[0])
    assert _post(server, "/label", {"labeller": "Ana", "face": "x", "answer": "happy"})[0] == 400
    assert _post(server, "/label", ["Ana"])[0] == 400
    assert _post(server, "/erase", {"labeller": "Ana"})[0] == 400
    answer, data = _request(server, "GET", f"/picture?face={FACES[0]}")
    assert (answer.getheader("Content-Type"), data[:4]) == ("image/png", b"\x89PNG")
    assert json.loads(_request(server, "GET", f"/guess?face={FACES[1]}")[1])["label"] == "disgust"


def test_other_sites_are_refused(server, campaign):
    act = {"labeller": "Eve", "face": FACES[0], "answer": "happy"}
    assert _request(server, "GET", "/", Host="evil.example")[0].status == 403
    assert _post(server, "/label", act, Host="evil.example:80")[0] == 403
    assert _post(server, "/label", act, Origin="http://evil.example")[0] == 403
    assert _post(server, "/label", act, Content_Type="text/plain")[0] == 403
    assert _post(server, "/label", act | {"answer": "x" * 5000})[0] == 413
    assert not (campaign / "labels.jsonl").exists()
    assert _post(server, "/label", act, Origin=server.address.rstrip("/"))[0] == 200
