import itertools

import numpy as np
import pytest
from rich.console import Console

from ferserve.faces.detectors import Detector
from ferserve.faces.types import Box, Detection
from ferserve.training.detector.card import ShippedDetector, render_detector_card
from ferserve.training.detector.contenders import Contender, line_up
from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.evaluate import DetectorFigures, DetectorReport
from ferserve.training.detector.labelling import LabelledPhoto
from ferserve.training.detector.matching import match, summarise
from ferserve.training.detector.recipe import ferdet
from ferserve.training.detector.speed import measure_ms
from ferserve.training.detector.tables import tables
from ferserve.training.detector.trials import CROWD_FACES, Crowds, crops_with_face, make_crowds, try_crowds


class FixedDetector(Detector):
    """Says the same of every picture, and how it was asked."""

    name = "fixed"

    def __init__(self, found):
        self.found, self.asked = found, []

    def default_size_px(self, height_px, width_px):
        return max(height_px, width_px)

    def detect(self, image, *, size_px=None):
        self.asked.append((image.shape, size_px))
        return self.found


FACE = Detection(box=Box(x0=0, y0=0, x1=30, y1=30), score=0.9, landmarks=np.zeros((5, 2), np.float32))


def test_time_is_measured_in_turn_at_each_size():
    detectors = [FixedDetector([]), FixedDetector([])]
    contenders = [Contender(name=name, detector=d) for name, d in zip("ab", detectors, strict=True)]
    ticks = itertools.cycle([0.0, 0.002, 0.002, 0.005])
    result = measure_ms(contenders, [np.zeros((50, 70, 3), np.uint8)], clock=lambda: next(ticks), rounds=3)
    assert {name: list(times) for name, times in result.items()} == {name: ["640x480", "320x240"] for name in "ab"}
    assert result["a"]["640x480"] == pytest.approx(2.0)
    assert result["b"]["320x240"] == pytest.approx(3.0)
    assert set(detectors[0].asked) == {((480, 640, 3), 640), ((240, 320, 3), 320)}


@pytest.fixture(scope="module")
def crowds():
    crop = FaceCrop(
        image=np.full((112, 112, 3), 128, np.uint8),
        box=np.array([30, 20, 80, 90], np.float32),
        landmarks=np.full((5, 2), 50, np.float32),
    )
    nobody = np.zeros((0, 4), np.float32)
    image = np.zeros((90, 90, 3), np.uint8)
    photo = LabelledPhoto(image=image, boxes=nobody, landmarks=np.zeros((0, 5, 2), np.float32), avoid=nobody)
    return make_crowds([photo], [crop], count=2, seed=1)


def test_crowds_are_large_and_full(crowds):
    assert [scene.image.shape for scene in crowds] == [(1080, 1920, 3)] * 2
    assert all(10 <= len(scene.boxes) <= CROWD_FACES for scene in crowds)
    sizes = np.concatenate([(scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1) for scene in crowds])
    # Turning by 45 degrees makes a head of 50 to 70 look smaller than its longer side.
    assert sizes.min() >= 20 * 0.85
    assert sizes.max() <= 161


def test_crowds_are_searched_at_both_sizes(crowds):
    detector = FixedDetector([FACE])
    tried = try_crowds(Contender(name="fixed", detector=detector), crowds)
    assert {size for _, size in detector.asked} == {None, 1920}
    assert tried.at_full.faces == sum(int(scene.exact.sum()) for scene in crowds)
    assert tried.at_full.unmatched_per_photo == 1.0


def test_crops_with_a_face_are_counted():
    image = np.zeros((40, 40, 3), np.uint8)
    assert crops_with_face(Contender(name="all", detector=FixedDetector([FACE])), [image] * 3) == 3
    assert crops_with_face(Contender(name="none", detector=FixedDetector([])), [image] * 3) == 0


def test_haar_stands_beside_every_other():
    assert [contender.name for contender in line_up("haar", None)] == ["haar"]


def _report(with_teacher):
    reference = np.array([[0, 0, 30, 30], [50, 50, 70, 80]], np.float32)
    rates = summarise([match([FACE], reference, np.array([[[0, 0], [10, 0], [5, 5], [0, 9], [9, 9]]] * 2, np.float32))])
    figures = DetectorFigures(
        labelled=rates,
        teacher=rates if with_teacher else None,
        ms={"640x480": 7.0, "320x240": 2.0},
        crowds=Crowds(at_default=rates, at_full=rates) if with_teacher else None,
        crops_with_face=3 if with_teacher else None,
    )
    names = ("ferdet", "haar", "teacher") if with_teacher else ("ferdet", "haar")
    return DetectorReport(photos=1, empty_crops=200, detectors=dict.fromkeys(names, figures))


@pytest.mark.parametrize("with_teacher", [True, False])
def test_tables_show_the_figures(with_teacher):
    console = Console(width=200)
    with console.capture() as shown:
        for table in tables(_report(with_teacher)):
            console.print(table)
    text = shown.get()
    assert "50.0 % (1 of 2)" in text
    assert ("7.00 (1.00 x)" in text) is with_teacher
    assert ("of 200 crops without a face, with one" in text) is with_teacher
    assert ("recall of the teacher's faces" in text) is with_teacher


@pytest.mark.parametrize(
    ("start", "said"),
    [(None, "trained from random weights"), ("b" * 64, "start weights and teacher"), ("c" * 64, "on from SHA-256 ccc")],
)
@pytest.mark.parametrize("with_teacher", [True, False])
def test_the_card_is_made_of_the_figures(tmp_path, with_teacher, start, said):
    shipped = ShippedDetector(path=tmp_path / "ferdet.onnx", bytes=494_000, sha256="a" * 64, epoch=40, min_score=0.44)
    card = render_detector_card(ferdet(), shipped, _report(with_teacher), teacher_sha256="b" * 64, start_sha256=start)
    assert card.startswith("# ferdet 1.1.0\n")
    assert "494000 bytes" in card
    assert "from score 0.44" in card
    assert said in card
    assert "| recall of labelled faces | 50.0 % (1 of 2) |" in card
    assert ("SHA-256 " + "b" * 64) in card
    assert ferdet().sha256 in card
    assert str(tmp_path) not in card
