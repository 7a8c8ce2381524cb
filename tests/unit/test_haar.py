from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data

from ferserve.faces.detectors import load_detector


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def detector():
    return load_detector("haar")


def test_finds_the_one_face(detector, photo):
    (face,) = detector.detect(photo)
    # Her face lies around (223, 113).
    assert face.box.x0 < 223 < face.box.x1
    assert face.box.y0 < 113 < face.box.y1
    assert 60 < face.box.width_px < 130
    assert 0 < face.score < 1
    assert face.landmarks is None


def test_boxes_are_in_the_pictures_own_pixels(detector, photo):
    (whole,) = detector.detect(photo)
    small = detector.detect(photo, size_px=400)[0]
    assert small.box.x0 == pytest.approx(whole.box.x0, abs=20)
    assert small.box.width_px == pytest.approx(whole.box.width_px, rel=0.25)


def test_threads_agree(detector, photo):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(detector.detect, [photo] * 8))
    assert {(r[0].box, r[0].score) for r in results} == {(results[0][0].box, results[0][0].score)}


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (23, 23), (200, 300)])
def test_nothing_is_found_in_nothing(detector, shape):
    assert detector.detect(np.zeros((*shape, 3), np.uint8)) == []
