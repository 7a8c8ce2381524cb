from dataclasses import replace

import numpy as np
import pytest

from ferserve.faces.archive import read_archive
from ferserve.faces.preprocess import PreprocessSpec, face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Box, Detection
from ferserve.training.data.errors import DataError
from ferserve.training.served import (
    LabelledPhoto,
    SearchedPhoto,
    ServedFaces,
    make_served_report,
    score_crops,
    serve_faces,
    stand_for,
)

TILE = np.array([[100, 100, 200, 200]], np.float32)


def _detection(x0, y0, x1, y1, score=0.9):
    return Detection(box=Box(x0=x0, y0=y0, x1=x1, y1=y1), score=score)


def test_a_face_inside_its_tile_stands_for_it():
    # A narrow box of 70 x 100 on a tile of 100 x 100: intersection over union 0.7.
    face = _detection(115, 100, 185, 200)
    assert stand_for([face], TILE) == (face,)


@pytest.mark.parametrize(
    "box",
    [
        (120, 120, 170, 170),  # overlap 0.25: a part of a face
        (130, 100, 230, 200),  # overlap 0.54, but its centre is 30 of 100 pixels off
        (0, 0, 400, 400),  # the tile is a sixteenth of it
        (300, 300, 400, 400),
    ],
)
def test_what_is_elsewhere_or_of_another_size_does_not(box):
    assert stand_for([_detection(*box)], TILE) == (None,)


def test_the_surest_detection_stands_for_a_face_and_for_one_only():
    weak, sure = _detection(100, 100, 200, 200, 0.7), _detection(105, 105, 195, 195, 0.95)
    assert stand_for([weak, sure], TILE) == (sure,)
    twins = np.array([[0, 0, 100, 100], [20, 0, 120, 100]], np.float32)
    first, second = _detection(2, 0, 102, 100, 0.9), _detection(4, 0, 104, 100, 0.8)
    assert stand_for([second, first], twins) == (first, second)


def test_no_detections_or_no_faces():
    assert stand_for([], TILE) == (None,)
    assert stand_for([_detection(0, 0, 9, 9)], np.zeros((0, 4), np.float32)) == ()


def _faces(labels, served, cropped, sizes):
    return ServedFaces(
        labels=np.asarray(labels), sizes_px=np.asarray(sizes, np.float32), served=np.asarray(served),
        cropped=np.asarray(cropped), photos=2, unmatched=3,
    )  # fmt: skip


def test_figures_by_hand():
    # Five faces: right, right, wrong, not found (right from its crop), not found (wrong from its crop too).
    report = make_served_report(_faces([0, 3, 6, 2, 4], [0, 3, 5, -1, -1], [0, 1, 6, 2, 3], [39, 40, 79, 100, 130]))
    assert (report.photos, report.faces, report.unmatched_per_photo) == (2, 5, 1.5)
    assert report.found.value == 3 / 5
    assert report.accuracy.value == 2 / 5
    assert report.accuracy_found.value == pytest.approx(2 / 3)
    assert report.cropped.value == 3 / 5
    assert report.cropped_found.value == pytest.approx(2 / 3)
    assert (report.paired.only_this_right, report.paired.only_float_right) == (1, 2)
    assert report.paired.difference.value == pytest.approx(-1 / 5)
    assert report.paired_found.difference.value == 0
    assert [(row.from_px, row.faces, row.found) for row in report.by_size] == [
        (0, 1, 1.0), (40, 2, 1.0), (80, 1, 0.0), (120, 1, 0.0),
    ]  # fmt: skip
    assert [row.accuracy for row in report.by_size] == [1.0, 0.5, 0.0, 0.0]
    assert [row.cropped for row in report.by_size] == [1.0, 0.5, 1.0, 0.0]


def test_nothing_found_has_no_accuracy_among_the_found():
    report = make_served_report(_faces([0], [-1], [0], [50]))
    assert (report.found.value, report.accuracy.value, report.accuracy_found) == (0, 0, None)
    assert (report.cropped_found, report.paired_found) == (None, None)


@pytest.fixture(scope="module")
def session(tiny_archive):
    return ScoringSession.from_archive(read_archive(tiny_archive))


SPEC = PreprocessSpec(size_px=24, channels=1)


def test_crops_are_scored_in_their_places(session):
    crops = [np.full((24, 24, 1), value, np.uint8) for value in (0, 255)]
    expected = session.score(crops).argmax(axis=1).tolist()
    assert score_crops(session, [None, crops[0], None, crops[1]]).tolist() == [-1, expected[0], -1, expected[1]]
    assert score_crops(session, [None]).tolist() == [-1]


def _searched(rows, detections):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    boxes = np.tile(TILE, (len(rows), 1))
    photo = LabelledPhoto(data=b"", boxes=boxes, rows=np.asarray(rows))
    return SearchedPhoto(pixels=pixels, photo=photo, faces=tuple(detections), unmatched=1)


def test_answers_come_to_the_face_they_belong_to(session):
    found = _detection(100, 100, 200, 200)
    outside = _detection(900, 900, 950, 950)
    photos = [_searched([2, 0], [found, None]), _searched([1], [outside])]
    faces = serve_faces(photos, np.array([0, 1, 2]), np.array([3, 4, 5]), session=session, spec=SPEC)
    expected = int(session.score([face_crop(photos[0].pixels, found, SPEC)]).argmax())
    assert faces.served.tolist() == [-1, -1, expected]  # no crop can be cut outside the picture
    assert (faces.photos, faces.unmatched, faces.sizes_px.tolist()) == (2, 2, [100, 100, 100])


def test_the_crop_follows_the_spec(session):
    photo = replace(_searched([0], [None]), faces=(_detection(100, 100, 200, 200),))
    wide = replace(SPEC, box_scale=2.0)
    crops = [face_crop(photo.pixels, photo.faces[0], spec) for spec in (SPEC, wide)]
    assert not np.array_equal(*crops)
    tops = [
        serve_faces([photo], np.zeros(1, int), np.zeros(1, int), session=session, spec=s).served for s in (SPEC, wide)
    ]
    assert [top.tolist() for top in tops] == [[int(session.score([crop]).argmax())] for crop in crops]


@pytest.mark.parametrize("rows", [[0], [0, 0, 1]])
def test_each_face_is_to_be_in_one_photo(session, rows):
    photo = _searched(rows, [None] * len(rows))
    with pytest.raises(DataError, match="expected each of 2 faces"):
        serve_faces([photo], np.zeros(2, int), np.zeros(2, int), session=session, spec=SPEC)


def test_no_faces_are_an_error(session):
    with pytest.raises(DataError, match="one at least"):
        serve_faces([], np.zeros(0, int), np.zeros(0, int), session=session, spec=SPEC)
