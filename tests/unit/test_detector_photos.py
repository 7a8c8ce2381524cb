import re

import cv2
import numpy as np
import pytest

from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import Photo, parse_photos, read_photos
from ferserve.training.detector.crops import comes_from, parse_sources
from ferserve.training.detector.photos import split_photos


def _photos(count):
    nobody = {"labelled": np.zeros((0, 4), np.float32), "expressions": np.zeros(0, np.int64)}
    return [Photo(name=f"happy_dog_{index}.jpg", path=None, **nobody) for index in range(count)]


def _names(photos):
    return {photo.name for photo in photos}


def test_the_split_is_by_name_alone():
    photos = _photos(50)
    split = split_photos(photos, aside=10, selection=5)
    again = split_photos(photos[::-1], aside=10, selection=5)
    assert split == again
    assert [len(part) for part in (split.aside, split.selection, split.fit)] == [10, 5, 35]
    assert _names(split.aside) | _names(split.selection) | _names(split.fit) == _names(photos)


def test_the_split_is_the_same_for_ever():
    # These are out of every run ever made: another answer means that weights have seen what they are judged on.
    split = split_photos(_photos(8), aside=2, selection=2)
    assert [photo.name for photo in split.aside] == ["happy_dog_4.jpg", "happy_dog_5.jpg"]


def test_further_photos_move_few():
    before = _names(split_photos(_photos(50), aside=10, selection=5).aside)
    after = _names(split_photos(_photos(52), aside=10, selection=5).aside)
    assert len(before & after) >= 8


def test_too_few_photos_are_refused():
    with pytest.raises(DataError, match="expected more than 15 photos, got 15"):
        split_photos(_photos(15), aside=10, selection=5)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "image").mkdir()
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 255
    cv2.imwrite(str(tmp_path / "image" / "a.png"), picture)
    (tmp_path / "label.lst").write_text("a.png 0 1 2 5 4 100 3\na.png 1 0 0 1 1 90 6\n")
    return tmp_path


def test_photos_are_read_with_their_boxes(folder):
    (photo,) = read_photos(folder)
    assert photo.labelled.tolist() == [[2, 1, 5, 4], [0, 0, 1, 1]]
    assert photo.read()[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.png 0 1 2 5", "label.lst line 1: expected `name face_id top"),
        ("a.png 0 1 x 5 4 100 3", "label.lst line 1: expected"),
        ("b.png 0 1 2 5 4 100 3", "image: expected b.png, named in label.lst; 1 are missing"),
    ],
)
def test_a_malformed_list_is_refused(folder, line, expected):
    (folder / "label.lst").write_text(line)
    with pytest.raises(DataError, match=re.escape(expected)):
        read_photos(folder)


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"found no label\.lst"):
        read_photos(tmp_path)


def test_what_is_no_picture_is_refused(folder):
    (folder / "image" / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can be decoded"):
        read_photos(folder)[0].read()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mad_cat_12.jpg", True), ("mad_cat_12_3.jpg", True), ("mad_cat_123.jpg", False), ("mad_cat.jpg", False)],
)
def test_crops_of_a_photo_are_known_by_their_names(tmp_path, name, expected):
    assert comes_from(tmp_path / name, {"mad_cat_12"}) is expected


def test_sources_are_parsed(tmp_path):
    assert parse_sources([f"lfw={tmp_path}"]) == {"lfw": tmp_path}
    assert parse_photos(f"expw_scenes={tmp_path}", option="--photos") == tmp_path
    for text in ("lfw", "other=.", "lfw=/nowhere"):
        with pytest.raises(DataError, match="--faces: expected NAME=DIR"):
            parse_sources([text])
    with pytest.raises(DataError, match="--photos: expected expw_scenes=DIR"):
        parse_photos("lfw=.", option="--photos")
