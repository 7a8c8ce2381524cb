import cv2
import numpy as np
import pytest

from ferserve.faces.detectors.decoding import Candidates
from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.crops import collect, verify
from ferserve.training.detector.labelling import is_empty, label_photo
from ferserve.training.detector.teacher import Teacher, pad_to_stride
from ferserve.training.detector.trials import empty_crops


class BrightTeacher:
    """Finds one face in a picture that is bright, none in a dark one; a bright corner is a second face."""

    def __init__(self, score=0.9):
        self.score, self.scales = score, []

    def faces(self, image, *, min_score, scale=1.0):
        self.scales.append(scale)
        count = int(image.mean() > 100) + int(image[:60, :60].mean() > 240)
        boxes = np.array([[100, 90, 200, 220], [60, 60, 80, 80]], np.float32)[:count]
        points = np.full((count, 5, 2), 150, np.float32)
        scores = np.array([self.score, 0.4], np.float32)[:count]
        found = Candidates(boxes=boxes, scores=scores, landmarks=points)
        return found.chosen(found.scores >= min_score)


BRIGHT = np.full((112, 112, 3), 150, np.uint8)


def test_a_verified_crop_has_the_box_in_its_own_pixels():
    crop = verify(BRIGHT, BrightTeacher())
    # The crop is enlarged to 208 and framed by 56 before the teacher sees it.
    expected = (np.array([100, 90, 200, 220]) - 56) * 112 / 208
    assert crop.box == pytest.approx(expected)
    assert crop.landmarks[0] == pytest.approx((150 - 56) * 112 / 208)


@pytest.mark.parametrize(
    ("image", "score"), [(BRIGHT // 3, 0.9), (BRIGHT, 0.7), (np.full((112, 112, 3), 255, np.uint8), 0.9)]
)
def test_none_doubtful_and_two_are_no_single_face(image, score):
    assert verify(image, BrightTeacher(score)) is None


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sad").mkdir()
    for index in range(6):
        cv2.imwrite(str(tmp_path / "sad" / f"man_{index}.jpg"), BRIGHT if index % 2 else BRIGHT // 3)
    return tmp_path


def test_crops_are_collected_in_a_stable_draw(folder):
    draws = [
        collect({"lfw": folder}, BrightTeacher(), per_source=4, seed=3, wanted=lambda _path: True, workers=workers)
        for workers in (1, 2)
    ]
    assert len(draws[0]) == len(draws[1]) <= 3
    whole = collect({"lfw": folder}, BrightTeacher(), per_source=9, seed=3, wanted=lambda _path: True, workers=1)
    assert len(whole) == 3


def test_unwanted_files_are_not_looked_at(folder):
    with pytest.raises(DataError, match="found none"):
        collect(
            {"lfw": folder},
            BrightTeacher(),
            per_source=9,
            seed=3,
            wanted=lambda path: path.stem in {"man_0", "man_2"},
            workers=1,
        )


def test_a_photo_is_looked_at_closely(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((300, 300, 3), 150, np.uint8))
    teacher = BrightTeacher()
    photo = label_photo(
        Photo(
            name="a.png",
            path=path,
            labelled=np.array([[1, 2, 3, 4]], np.float32),
            expressions=np.array([3]),
        ),
        teacher,
    )
    assert teacher.scales == [0.5, 1.0, 1.5]
    assert len(photo.boxes) == 1
    assert photo.avoid.tolist() == [[100, 90, 200, 220]] * 3 + [[1, 2, 3, 4]]


def test_empty_crops_are_those_the_teacher_says_nothing_of():
    dark, bright = np.zeros((80, 100, 3), np.uint8), np.full((80, 100, 3), 150, np.uint8)
    crops = empty_crops([dark, bright], BrightTeacher(), count=10, seed=0)
    assert len(crops) == 10
    assert all(is_empty(crop, BrightTeacher()) and 16 <= crop.shape[0] <= 64 for crop in crops)
    assert empty_crops([bright], BrightTeacher(), count=2, seed=0) == []


def test_padding_is_black_and_whole_cells():
    padded = pad_to_stride(np.full((33, 64, 3), 7, np.uint8))
    assert padded.shape == (64, 64, 3)
    assert (padded[:33] == 7).all()
    assert not padded[33:].any()


def test_a_teacher_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="found none"):
        Teacher(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(DataError, match="expected a YuNet file"):
        Teacher(tmp_path / "bad.onnx")
