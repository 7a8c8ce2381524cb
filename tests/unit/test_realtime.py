import cv2
import numpy as np
import pytest
import skimage.data

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.serving.benchmarks.payloads import best_face
from ferserve.serving.benchmarks.realtime import FRAME_PX, frame_with, measure_realtime, paper_ms
from ferserve.serving.benchmarks.realtime_plot import plot_realtime
from ferserve.serving.commands.bench_realtime import faces_of
from ferserve.serving.engine import ModelsConfig
from ferserve.serving.errors import ConfigError


@pytest.fixture(scope="module")
def astronaut():
    return cv2.imencode(".png", skimage.data.astronaut()[:, :, ::-1])[1].tobytes()


def test_the_papers_formula_gives_its_91_ms_for_four_faces():
    assert paper_ms(4) == pytest.approx(91.17)


@pytest.mark.parametrize("faces", [1, 2, 4, 8, 16])
def test_every_face_of_a_frame_is_found(astronaut, faces):
    pixels, box = best_face(astronaut, default_detector())
    image = decode(frame_with(pixels, box, faces), DecodeLimits()).pixels
    assert image.shape == (FRAME_PX[1], FRAME_PX[0], 3)
    assert len(default_detector().detect(image)) == faces


def test_the_table_holds_every_stage_and_the_plot_is_drawn(astronaut, tiny_archive, tmp_path):
    models = ModelsConfig(archives=(str(tiny_archive),))
    report = measure_realtime(models, astronaut, faces=(1, 4), repeats=5)
    assert [(frame.faces, frame.found) for frame in report.frames] == [(1, 1), (4, 4)]
    for frame in report.frames:
        for stage in (frame.decode, frame.detect, frame.preprocess, frame.classify):
            assert 0 < stage.low_ms <= stage.median_ms <= stage.high_ms
        assert frame.total.high_ms >= frame.detect.median_ms
    plot_realtime(report, tmp_path / "realtime.png")
    drawn = cv2.imread(str(tmp_path / "realtime.png"))
    assert drawn.shape[0] > 300
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10


def test_numbers_of_faces_are_read_or_refused():
    assert faces_of("1, 2,16") == (1, 2, 16)
    for text in ("", "0", "65", "two", "1,,2"):
        with pytest.raises(ConfigError, match=r"^--faces: expected numbers from 1 to 64"):
            faces_of(text)
