"""The ONNX detector on a net that finds red (see `red_graph`): a red cell of 8 x 8 pixels is a face of 16 x 16."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ferserve.faces.detectors.onnx import MIN_SCORE, OnnxDetector
from ferserve.faces.errors import ArchiveError

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def detector(red_graph):
    return OnnxDetector(red_graph(), name="red")


@pytest.fixture(scope="module")
def fixed(red_graph):
    return OnnxDetector(red_graph(side_px=320), name="fixed")


def picture(width, height, *squares, side_px=8, colour=RED):
    """Black, with squares at these top left corners."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in squares:
        image[y : y + side_px, x : x + side_px] = colour
    return image


def corners(face):
    return face.box.x0, face.box.y0, face.box.x1, face.box.y1


def middles(faces):
    return sorted(((face.box.x0 + face.box.x1) / 2, (face.box.y0 + face.box.y1) / 2) for face in faces)


def test_a_face_as_by_hand(detector):
    (face,) = detector.detect(picture(100, 70, (24, 16)))  # neither side is a multiple of 32
    assert corners(face) == pytest.approx((20, 12, 36, 28))
    assert face.score == pytest.approx(1.0)
    # Quarters of the cell: the person's own right eye lies on the picture's left.
    np.testing.assert_allclose(face.landmarks, [[26, 18], [30, 18], [28, 20], [26, 22], [30, 22]])
    assert face.landmarks.dtype == np.float32


def test_red_is_red_and_not_blue(detector):
    assert detector.detect(picture(64, 64, (8, 8), colour=(0, 0, 255))) == []


def test_the_surest_face_comes_first(detector):
    image = picture(96, 96, (8, 8), colour=(180, 0, 0)) + picture(96, 96, (64, 64), colour=(250, 0, 0))
    first, second = detector.detect(image)
    assert (first.score, second.score) == pytest.approx((250 / 255, 180 / 255), abs=1e-5)
    assert first.box.x0 > second.box.x0


def test_the_threshold_stands_in_the_file_or_is_given(red_graph):
    image = picture(64, 64, (8, 8), colour=(140, 0, 0))  # 140 / 255 = 0.55
    assert MIN_SCORE == 0.6
    assert not OnnxDetector(red_graph(), name="red").detect(image)
    stated = red_graph(metadata={"min_score": "0.5"})
    assert OnnxDetector(stated, name="red").detect(image)
    assert not OnnxDetector(stated, name="red", min_score=0.7).detect(image)


def test_a_smaller_size_finds_large_faces_in_the_pictures_pixels(detector):
    image = picture(640, 480, (320, 160), side_px=32)
    (face,) = detector.detect(image, size_px=160)  # a quarter: one cell
    assert corners(face) == pytest.approx((304, 144, 368, 208))
    np.testing.assert_allclose(face.landmarks[2], [336, 176])


def test_small_pictures_are_never_enlarged(detector):
    assert middles(detector.detect(picture(64, 64, (8, 8)), size_px=4096)) == [(12, 12)]


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (2500, 400)])
def test_faces_in_all_tiles_are_found_once(detector, width, height):
    places = [(x, y) for x in range(0, width - 12, 97) for y in range(0, height - 12, 89)]
    # Of 15 pixels: wherever a tile's cells begin, one of them lies inside.
    image = picture(width, height, *places, side_px=15)
    found = middles(detector.detect(image, size_px=max(width, height)))
    nearest = {min(places, key=lambda at: abs(at[0] + 7.5 - x) + abs(at[1] + 7.5 - y)) for x, y in found}
    assert nearest == set(places)
    assert all(min(abs(x + 7.5 - at_x) + abs(y + 7.5 - at_y) for x, y in places) < 16 for at_x, at_y in found)


def test_a_large_picture_is_searched_for_large_faces_too(detector):
    # At 1920 and in tiles it is many small ones; at 640 a single cell, whose box is the surest of its place.
    image = picture(1920, 960, (960, 480), side_px=24)
    sides = [face.box.width_px for face in detector.detect(image, size_px=1920)]
    assert sides.count(pytest.approx(48)) == 1


def test_a_fixed_file_sees_small_pictures_padded(fixed):
    (face,) = fixed.detect(picture(100, 70, (24, 16)))
    assert corners(face) == pytest.approx((20, 12, 36, 28))


def test_a_fixed_file_takes_its_own_size_unless_asked_for_more(fixed):
    image = picture(640, 480, (8, 8), (600, 440))
    assert fixed.default_size_px(480, 640) == 320
    assert fixed.detect(image) == [], "half a cell each"
    assert len(fixed.detect(image, size_px=640)) == 2


def test_default_sizes(detector):
    sizes = [detector.default_size_px(h, w) for h, w in [(48, 48), (480, 640), (640, 480), (1080, 1920), (3000, 4000)]]
    assert sizes == [48, 640, 640, 1920, 1920]


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 3), (33, 7), (0, 0), (0, 5), (1500, 2100)])
def test_nothing_is_found_in_nothing(detector, fixed, shape):
    black = np.zeros((*shape, 3), np.uint8)
    assert detector.detect(black) == []
    assert fixed.detect(black[:500, :500]) == []


@pytest.mark.parametrize("shape", [(3, 20_000), (20_000, 3)])
def test_extreme_shapes_at_every_pixel(detector, shape):
    assert detector.detect(np.zeros((*shape, 3), np.uint8), size_px=20_000) == []


def test_a_picture_full_of_faces_stays_bounded(detector):
    everywhere = np.empty((1024, 1024, 3), np.uint8)
    everywhere[:] = RED
    found = detector.detect(everywhere, size_px=640)
    assert 1000 < len(found) <= 5000


def test_noise_is_no_reason_to_fail(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    for face in detector.detect(noise):
        assert 0.6 <= face.score <= 1


def test_what_is_given_stays_as_it_is(detector):
    image = picture(1000, 700, (8, 8))
    image.flags.writeable = False
    before = image.copy()
    detector.detect(image)
    np.testing.assert_array_equal(image, before)


def test_views_are_pictures_too(detector):
    image = picture(100, 70, (24, 16))
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert middles(detector.detect(mirrored)) == middles(detector.detect(image)) == [(28, 20)]


def test_threads_agree(detector):
    pictures = [picture(320 + 32 * n, 240, (8 * n, 16)) for n in range(8)]
    alone = [middles(detector.detect(image)) for image in pictures]
    together = threading.Barrier(4)

    def detect(image):
        together.wait(30)
        return middles(detector.detect(image))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detect, pictures)) == alone


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda _: b"", "ONNX Runtime refuses it"),
        (lambda _: b"no graph at all" * 9, "ONNX Runtime refuses it"),
        (lambda graph: graph(side_px=100), r"H and W free or multiples of 32, got input: .*100, 100"),
        (lambda graph: graph(outputs={"cls_8": "scores"}), "expected the .* outputs cls_8, .*, got .*scores"),
        (lambda graph: graph(metadata={"min_score": "high"}), "expected a number as min_score, got 'high'"),
        (lambda graph: graph(metadata={"min_score": "1.5"}), "above 0 and at most 1, got 1.5"),
        (lambda graph: graph(metadata={"min_score": "nan"}), "above 0 and at most 1, got nan"),
    ],
)
def test_what_is_no_detector_is_refused(red_graph, build, message):
    with pytest.raises(ArchiveError, match=message):
        OnnxDetector(build(red_graph), name="bad")


def test_a_classifier_is_no_detector(conv_graph):
    with pytest.raises(ArchiveError, match=r"expected one tensor\(float\) input of shape \(1, 3, H, W\).*uint8"):
        OnnxDetector(conv_graph, name="bad")


def test_grids_that_are_none_are_refused(red_graph):
    coarse = red_graph(cells_px=(16, 16, 32))
    with pytest.raises(
        ArchiveError, match=r"expected cls_8 of shape \(1, 96, 1\) for 96 x 64 pixels, got \(1, 24, 1\)"
    ):
        OnnxDetector(coarse, name="bad")


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (800, 800)])
def test_what_the_network_is_given_are_the_pixels_in_its_order_whatever_came_before(detector, size):
    height, width = size
    images = np.random.default_rng(5).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    for image in images:
        blob = detector._inputs.of(image)
        np.testing.assert_array_equal(blob, cv2.dnn.blobFromImage(image, swapRB=True))


def test_a_small_input_is_kept_for_the_next_one_of_its_size_and_a_large_one_is_not(red_graph):
    inputs = OnnxDetector(red_graph(), name="red")._inputs
    small, large = np.zeros((480, 640, 3), np.uint8), np.zeros((800, 800, 3), np.uint8)
    assert inputs.of(small) is inputs.of(small)
    assert inputs.of(large) is not inputs.of(large)
    assert inputs.kept is None


def test_a_run_that_gives_its_memory_back_finds_the_same(detector):
    image = picture(96, 64, (24, 16), (64, 40))
    detector.detect(picture(128, 128))  # another size, so that the next run gives back and the one after it does not
    first, second = detector.detect(image), detector.detect(image)
    assert [corners(face) for face in first] == [corners(face) for face in second]
    assert [face.score for face in first] == [face.score for face in second]
    assert len(first) == 2
