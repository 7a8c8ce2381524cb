"""From a folder of pictures to crops: what is kept, why the rest is not, and that a stop costs nothing."""

import json
from collections import Counter
from itertools import islice

import cv2
import numpy as np
import pytest
import skimage.data
from tests.made_up import data_sets as made_up
from typer.testing import CliRunner

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection
from ferserve.training.active import build as building
from ferserve.training.active import walk as walking
from ferserve.training.active.build import WebBuilder
from ferserve.training.active.pool import Pool, read_rows
from ferserve.training.active.seen import Seen
from ferserve.training.active.walk import walk_pictures
from ferserve.training.active.web_settings import WebSettings
from ferserve.training.cli.active import active
from ferserve.training.data.catalog import parse_set
from ferserve.training.data.errors import DataError

SPEC = PreprocessSpec(size_px=24, channels=1)


class WholePicture:
    """Finds one face as large as the picture, unless that is black."""

    name = "whole"

    def default_size_px(self, height_px, width_px):
        return max(height_px, width_px)

    def detect(self, image, *, size_px=None):
        assert size_px == max(image.shape[:2])
        height, width = image.shape[:2]
        return [Detection(box=Box(x0=0, y0=0, x1=width, y1=height), score=0.9)] if image.max() > 0 else []

    def steps(self, image, *, size_px=None):
        yield from ()
        return self.detect(image, size_px=size_px)


@pytest.fixture(scope="module")
def faces():
    """Ten different views of one photo, 64 x 64, in place of faces."""
    photo = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    corners = [(y, x) for y in range(0, 400, 100) for x in range(0, 400, 130)][:10]
    return [cv2.resize(photo[y : y + 110, x : x + 110], (64, 64), interpolation=cv2.INTER_AREA) for y, x in corners]


def _write(path, picture, *options):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture, list(options))


@pytest.fixture
def web(tmp_path, faces):
    """Six faces, and one picture for each reason to leave one out."""
    folder = tmp_path / "web"
    for number, face in enumerate(faces[:6]):
        _write(folder / "happy" / f"{number}.png", face)
    (folder / "happy" / "9-copy.png").write_bytes((folder / "happy" / "2.png").read_bytes())
    _write(folder / "sad" / "again.jpg", faces[3], cv2.IMWRITE_JPEG_QUALITY, 70)
    _write(folder / "sad" / "mirror.png", np.ascontiguousarray(faces[4][:, ::-1]))
    _write(folder / "sad" / "black.png", np.zeros((64, 64, 3), np.uint8))
    _write(folder / "sad" / "thumbnail.png", cv2.resize(faces[8], (16, 16)))
    _write(folder / "sad" / "tested.png", faces[7])
    (folder / "sad" / "text.jpg").write_text("hello")
    (folder / ".hidden.png").write_text("")
    (folder / "notes.txt").write_text("")
    return folder


@pytest.fixture
def test_set(tmp_path, faces):
    grey = cv2.resize(cv2.cvtColor(faces[7], cv2.COLOR_BGR2GRAY), (48, 48), interpolation=cv2.INTER_AREA)
    made_up.write_fer2013(tmp_path / "fer2013", grey[None], [3], ["PublicTest"])
    return parse_set(f"fer2013.public={tmp_path / 'fer2013'}", option="--audit")


def _builder(web, out, *audited, **settings):
    return WebBuilder(
        WebSettings(
            source=str(web), preprocess=SPEC, detector="whole", audited=tuple(one.title for one in audited), **settings
        ),
        out=out,
        detector=WholePicture(),
        audited=audited,
    )


def _rows(out):
    return [row for path in sorted((out / "shards").glob("*.jsonl")) for row in read_rows(path)]


def test_every_picture_has_a_row_with_its_reason(web, tmp_path, test_set):
    out = tmp_path / "campaign"
    report = _builder(web, out, test_set).build()
    assert (report.pictures, report.kept, report.is_finished) == (13, 6, True)
    rows = {row["picture"]: row for row in _rows(out)}
    assert len(rows) == 13
    assert [rows[f"happy/{number}.png"]["id"] for number in range(6)] == [f"000000-{row:04d}" for row in range(6)]
    reasons = {name: row["reason"] for name, row in rows.items() if row["status"] == "dropped"}
    assert reasons == {
        "happy/9-copy.png": "identical",
        "sad/again.jpg": "similar",
        "sad/mirror.png": "similar",
        "sad/black.png": "no_face",
        "sad/thumbnail.png": "small",
        "sad/tested.png": "in_audited_set",
        "sad/text.jpg": "unreadable",
    }
    assert rows["happy/9-copy.png"]["of"] == "happy/2.png"
    assert (rows["sad/again.jpg"]["of"], rows["sad/again.jpg"]["mirrored"]) == ("000000-0003", False)
    assert (rows["sad/mirror.png"]["of"], rows["sad/mirror.png"]["mirrored"]) == ("000000-0004", True)
    assert rows["sad/tested.png"]["of"] == "fer2013.public PublicTest 0"
    assert "expected JPEG, PNG" in rows["sad/text.jpg"]["message"]
    assert Counter(reasons.values()) == report.dropped
    assert rows["happy/1.png"]["box"] == [0, 0, 64, 64]


def test_the_crops_are_those_of_the_one_pixel_path(web, tmp_path):
    out = tmp_path / "campaign"
    _builder(web, out).build()
    pool = Pool(out)
    assert (len(pool), pool.spec) == (7, SPEC)
    assert "000000-0006" in pool
    assert "000000-0007" not in pool
    for text in ("face", "0-0001", "000000-00001", "000000-1", "000000-"):
        assert text not in pool
    assert list(pool.ids())[:2] == ["000000-0000", "000000-0001"]
    picked = pool.crops_of(["000000-0005", "000000-0001"])
    assert picked.shape == (2, 24, 24, 1)
    assert (picked[1] == pool.crops(0)[1]).all()
    assert pool.row_of("000000-0005")["picture"] == "happy/5.png"


def test_a_build_that_is_stopped_goes_on_and_comes_to_the_same(web, tmp_path, monkeypatch, test_set):
    monkeypatch.setattr(building, "PICTURES", 4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _builder(web, whole, test_set).build()
    for _ in range(20):
        looked: list[None] = []
        builder = _builder(web, parts, test_set)
        report = builder.build(
            on_picture=lambda seen=looked: seen.append(None), should_stop=lambda s=looked: len(s) > 2
        )
        if report.is_finished:
            break
        assert not json.loads((parts / "web.json").read_text())["is_finished"]
    kept = [{row["picture"] for row in _rows(out) if row["status"] == "kept"} for out in (whole, parts)]
    assert kept[0] == kept[1]
    names = [row["picture"] for row in _rows(parts)]
    assert len(names) == len(set(names)) == 13
    [copy] = [row for row in _rows(parts) if row["picture"] == "happy/9-copy.png"]
    assert copy["of"] == "happy/2.png"
    assert json.loads((parts / "web.json").read_text())["dropped"]["similar"] == 2


def test_a_shard_without_its_rows_is_made_anew(web, tmp_path):
    out = tmp_path / "campaign"
    _builder(web, out).build()
    (out / "shards" / "000000.jsonl").unlink()  # as a crash between the two files leaves it
    assert _builder(web, out).build().kept == 7
    assert len(Pool(out)) == 7


def test_new_pictures_join_a_finished_build(web, tmp_path, faces):
    out = tmp_path / "campaign"
    _builder(web, out).build()
    _write(web / "new.png", faces[9])
    report = _builder(web, out).build()
    assert (report.pictures, report.kept) == (14, 8)
    assert "000001-0000" in Pool(out)


def test_other_settings_and_empty_folders_are_refused(web, tmp_path):
    out = tmp_path / "campaign"
    _builder(web, out).build()
    with pytest.raises(DataError, match=r"expected a build with the same min_face_px; choose another --out"):
        _builder(web, out, min_face_px=40)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected at least one picture \(JPEG, .*\), found none"):
        _builder(tmp_path / "empty", tmp_path / "a").build()
    _write(tmp_path / "dark" / "black.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"at least one face to keep, found none in 1 pictures \(no_face 1\); .* a row for each"
    ):
        _builder(tmp_path / "dark", tmp_path / "b").build()
    with pytest.raises(DataError, match=r"expected a folder of pictures, found none at"):
        list(walk_pictures(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"web\.json, found none; `ferserve active build"):
        Pool(tmp_path / "nowhere")


def test_the_command_finds_faces_by_the_shipped_detector(tmp_path, tiny_archive, face_photo):
    web = tmp_path / "web"
    web.mkdir()
    (web / "photo.jpg").write_bytes(face_photo)
    photo = cv2.imdecode(np.frombuffer(face_photo, np.uint8), cv2.IMREAD_COLOR)
    _write(web / "smaller.jpg", cv2.resize(photo, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA))
    arguments = ["build", str(web), "--out", str(web / "campaign"), "--crops-for", str(tiny_archive), "--json"]
    done = CliRunner().invoke(active, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["pictures"], found["kept"], found["dropped"]) == (2, 1, {"similar": 1})
    [kept] = [row for row in _rows(web / "campaign") if row["status"] == "kept"]
    assert kept["detection_score"] > 0.5
    assert CliRunner().invoke(active, arguments).exit_code == 0  # what the campaign wrote is no picture of the web


class _Entry:
    def __init__(self, number):
        self.name = f"{number:09d}.jpg"

    def is_dir(self, *, follow_symlinks):
        assert not follow_symlinks
        return False


class _EndlessFolder:
    def __enter__(self):
        return (_Entry(number) for number in iter(int, 1))

    def __exit__(self, *_):
        pass


def test_a_folder_without_an_end_is_walked(tmp_path, monkeypatch):
    monkeypatch.setattr(walking.os, "scandir", lambda _: _EndlessFolder())
    assert len(list(islice(walk_pictures(tmp_path), 10_000))) == 10_000


def test_a_walk_passes_over_the_campaign_and_follows_no_links(tmp_path):
    for name in ("b.jpg", "a/c.JPG", "campaign/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert list(walk_pictures(tmp_path, skipped=tmp_path / "campaign")) == ["b.jpg", "a/c.JPG"]


def test_what_was_seen_is_found_before_and_after_a_merge():
    seen, rng = Seen(), np.random.default_rng(0)
    keys = rng.integers(1, 2**63, 10_000, dtype=np.uint64)
    for number, key in enumerate(keys[:6000].tolist()):
        seen.add(key, number)
    seen.extend(keys[5000:], np.arange(5000, 10_000))
    assert len(seen) == len(np.unique(keys))
    assert [seen.find(int(keys[row])) for row in (0, 4999, 5500, 9999)] == [0, 4999, 5500, 9999]
    assert seen.find(0) is None
