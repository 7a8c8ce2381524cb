import json

import cv2
import numpy as np
import pytest
import skimage.data
from tests.made_up import data_sets as made_up
from typer.testing import CliRunner

from ferserve.training.cli.data import data
from ferserve.training.data.audit import audit_sources, shared_pictures
from ferserve.training.data.catalog import parse_set
from ferserve.training.data.errors import DataError
from ferserve.training.data.overlap import difference_hash, find_overlap, make_prints
from ferserve.training.data.sets import CLASSES, Pictures
from ferserve.training.measure import evaluate_archive


def _pictures(images, labels=None):
    return Pictures(
        names=tuple(f"picture {row}" for row in range(len(images))),
        origins=tuple(images),
        labels=np.zeros(len(images), np.int64) if labels is None else np.asarray(labels),
        classes=CLASSES,
        subjects=None,
        splits=("all",) * len(images),
    )


@pytest.fixture(scope="module")
def windows():
    """Forty different views of one photo, 48 x 48 and grey."""
    grey = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    rng = np.random.default_rng(0)
    corners = [(row, column) for row in range(0, 400, 90) for column in range(0, 400, 55)]
    rng.shuffle(corners)
    return [cv2.resize(grey[y : y + 110, x : x + 110], (48, 48), interpolation=cv2.INTER_AREA) for y, x in corners[:40]]


def _jpeg(image, quality=60):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def test_the_hash_by_hand():
    # Darker to the right everywhere: no bit; lighter to the right everywhere: all of them.
    ramp = np.tile(np.linspace(0, 255, 170).astype(np.uint8), (160, 1))
    assert np.bitwise_count(difference_hash(ramp)).sum() == 256
    assert np.bitwise_count(difference_hash(ramp[:, ::-1].copy())).sum() == 0


def test_unrelated_pictures_share_nothing(windows):
    overlap = find_overlap(make_prints(_pictures(windows[:20])), make_prints(_pictures(windows[20:])))
    assert (len(overlap.exact), len(overlap.near)) == (0, 0)
    alone = find_overlap(make_prints(_pictures(windows)))
    assert (len(alone.exact), len(alone.near)) == (0, 0)


@pytest.mark.parametrize(
    ("change", "mirrored"),
    [
        (_jpeg, False),
        (lambda image: cv2.resize(image, (112, 112), interpolation=cv2.INTER_LINEAR), False),
        (lambda image: np.clip(0.8 * image + 30, 0, 255).astype(np.uint8), False),
        (lambda image: _jpeg(np.ascontiguousarray(image[:, ::-1])), True),
    ],
)
def test_changed_copies_are_near_and_not_exact(windows, change, mirrored):
    others = [*windows[10:20], *(change(image) for image in windows[:10])]
    overlap = find_overlap(make_prints(_pictures(windows[:10])), make_prints(_pictures(others)))
    assert len(overlap.exact) == 0
    assert overlap.near.first.tolist() == list(range(10))
    assert overlap.near.second.tolist() == list(range(10, 20))
    assert overlap.near.mirrored.tolist() == [mirrored] * 10
    assert (overlap.near.correlation >= 0.93).all()


def test_copies_are_exact_once_and_not_near_as_well(windows):
    overlap = find_overlap(make_prints(_pictures([*windows[:5], windows[2], windows[2]])))
    assert list(zip(overlap.exact.first.tolist(), overlap.exact.second.tolist(), strict=True)) == [
        (2, 5),
        (2, 6),
        (5, 6),
    ]
    assert len(overlap.near) == 0


def test_a_blank_picture_is_near_to_none():
    blank = [np.full((48, 48), value, np.uint8) for value in (0, 128)]
    assert len(find_overlap(make_prints(_pictures(blank))).near) == 0


@pytest.fixture
def leaky(tmp_path, windows):
    """FER-2013's layout: two public pictures stand in Training, one with another label; one is there re-encoded."""
    images = np.stack([*windows[:8], windows[20], windows[0], windows[1], _jpeg(windows[2])])
    usages = ["Training"] * 8 + ["PublicTest"] * 4
    labels = [3, 4, 5, 0, 1, 2, 6, 3, 3, 3, 0, 5]
    made_up.write_fer2013(tmp_path, images, labels, usages)
    return tmp_path


def test_the_audit_counts_pictures_and_other_labels(leaky):
    sources = [parse_set(f"fer2013.{split}={leaky}", option="SET") for split in ("public", "train")]
    [pair] = audit_sources(sources).audits
    assert (pair.first.name, pair.first.pictures, pair.first.exact, pair.first.near) == ("fer2013.public", 4, 2, 1)
    assert (pair.second.name, pair.second.exact, pair.second.near) == ("fer2013.train", 2, 1)
    assert (pair.exact_with_other_label, pair.near_with_other_label) == (1, 0)
    assert [(shared.first, shared.second) for shared in pair.exact_pairs] == [
        ("PublicTest 1", "Training 0"), ("PublicTest 2", "Training 1"),
    ]  # fmt: skip
    assert pair.exact_pairs[1].labels == ("angry", "sad")
    with pytest.raises(DataError, match=r"each once, got fer2013\.public, fer2013\.public"):
        audit_sources([sources[0]] * 2)


def test_the_verb_prints_writes_and_keeps_names_to_itself(leaky, tmp_path):
    sets = [f"fer2013.public={leaky}", f"fer2013.train={leaky}"]
    out = tmp_path / "audit.json"
    printed = CliRunner().invoke(data, ["audit", *sets, "--out", str(out), "--json"])
    assert printed.exit_code == 0
    report = json.loads(printed.stdout)
    assert report == json.loads(out.read_text())
    assert (report["kind"], report["max_distance"], report["min_correlation"]) == ("overlap", 48, 0.93)
    assert "PublicTest 1" not in printed.stdout
    named = CliRunner().invoke(data, ["audit", *sets, "--json", "--pairs"])
    assert json.loads(named.stdout)["audits"][0]["near_pairs"][0]["first"] == "PublicTest 3"
    table = CliRunner().invoke(data, ["audit", f"fer2013={leaky}"])
    assert table.exit_code == 0
    assert "correlate by" in table.stdout


def test_an_archive_is_measured_without_what_an_audit_names(leaky, tmp_path, tiny_archive):
    out = tmp_path / "audit.json"
    sets = [f"fer2013.public={leaky}", f"fer2013.train={leaky}"]
    assert CliRunner().invoke(data, ["audit", *sets, "--pairs", "--out", str(out)]).exit_code == 0
    assert shared_pictures(out, "fer2013.public", "PublicTest", 4).tolist() == [False, True, True, True]
    measured = evaluate_archive(
        str(tiny_archive), f"fer2013={leaky}", split="public", labels="fer2013", threads=1, audit=out
    )
    faces = (measured.report, measured.without_duplicates, measured.without_similar)
    assert [report.faces for report in faces] == [4, 2, 1]
    assert measured.to_dict()["without_similar"]["faces"] == 1
    with pytest.raises(DataError, match=r"expected an audit of 5 pictures of fer2013\.public, got 4"):
        shared_pictures(out, "fer2013.public", "PublicTest", 5)
    CliRunner().invoke(data, ["audit", *sets, "--out", str(out)])
    with pytest.raises(DataError, match=r"with its pairs; `ferserve data audit fer2013\.public=DIR fer2013\.train=DIR"):
        shared_pictures(out, "fer2013.public", "PublicTest", 4)


def test_describe_tells_what_is_there(tmp_path):
    made_up.write_ck48(tmp_path)
    report = json.loads(CliRunner().invoke(data, ["describe", str(tmp_path), "--json"]).stdout)
    assert (report["name"], report["pictures"], report["people"], report["may_ship"]) == ("ck48", 18, 5, False)
    assert report["labels"]["contempt"] == 3
    assert "S005" not in CliRunner().invoke(data, ["describe", f"ck48={tmp_path}"]).stdout
    catalog = json.loads(CliRunner().invoke(data, ["describe", "--json"]).stdout)
    assert {"celeba", "sfew", "vgg_face"} <= {about["name"] for about in catalog}
    assert CliRunner().invoke(data, ["describe"]).exit_code == 0


def test_check_names_broken_pictures_and_fails(tmp_path):
    made_up.write_class_folders(tmp_path, ["happy", "sad"])
    whole = CliRunner().invoke(data, ["check", f"folders={tmp_path}"])
    assert whole.exit_code == 0
    assert "4 pictures, 0 broken; 24 x 24 px (4)" in whole.stdout
    path = next((tmp_path / "sad").iterdir())
    path.write_bytes(path.read_bytes()[:200])
    broken = CliRunner().invoke(data, ["check", f"folders={tmp_path}"])
    assert broken.exit_code == 1
    assert f"{path}: expected a picture that can be decoded" in broken.stdout
    report = json.loads(CliRunner().invoke(data, ["check", f"folders={tmp_path}", "--json"]).stdout)
    assert (len(report["broken"]), report["sizes"]) == (1, {"24 x 24": 3})
