"""A user's own detector file, what `exact` finds with it, and how the verbs take it."""

import csv
import json

import cv2
import numpy as np
import pytest

from ferserve.faces.errors import ArchiveError
from ferserve.serving.cli import main
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions, RequestContext

PLACES = [(100, 40), (2900, 120), (5950, 200)]


@pytest.fixture(scope="module")
def panorama() -> bytes:
    """A JPEG of 6000 x 300 pixels with three red squares of 15: faces that only every pixel shows."""
    image = np.zeros((300, 6000, 3), np.uint8)
    for x, y in PLACES:
        image[y : y + 15, x : x + 15, 2] = 255
    options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, encoded = cv2.imencode(".jpg", image, options)
    assert done
    return encoded.tobytes()


@pytest.fixture
def run(capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, " ".join(err.split())

    return run


async def test_exact_finds_the_small_faces_of_a_large_picture(tiny_archive, red_detector, panorama):
    models = ModelsConfig(archives=(str(tiny_archive),), detector=str(red_detector))
    config, context = EngineConfig(models=models), RequestContext(request_id="a")
    async with running_engine(config, open_archives(models), Metrics()) as engine:
        usual = await engine.analyzer.analyze(panorama, AnalyzeOptions(), context)
        exact = await engine.analyzer.analyze(panorama, AnalyzeOptions(exact=True), context)
    assert usual.faces == ()
    assert (exact.width_px, exact.height_px, exact.detector) == (6000, 300, "onnx")
    boxes = sorted((face.detection.box for face in exact.faces), key=lambda box: box.x0)
    middles = [((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in boxes]
    assert middles == [(pytest.approx(x + 7.5, abs=8), pytest.approx(y + 7.5, abs=8)) for x, y in PLACES]
    assert all(face.detection.landmarks is not None for face in exact.faces)


def test_score_takes_a_file_and_exactness(run, tiny_archive, red_detector, panorama, tmp_path):
    picture, out = tmp_path / "panorama.jpg", tmp_path / "scores.csv"
    picture.write_bytes(panorama)
    flags = ["--out", out, "--model", tiny_archive, "--detector", red_detector]
    for more, faces in ((["--exact"], 3), ([], 0)):
        assert run("score", picture, *flags, *more)[0] == 0
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["status"] for row in rows] == (["ok"] * faces or ["no_face"])
        assert {row["detector"] for row in rows} == {"onnx"}


def test_bench_takes_a_file(run, tiny_archive, red_detector):
    code, printed, _ = run(
        "bench", "stages", "--model", tiny_archive, "--detector", red_detector, "--repeats", 5, "--json"
    )
    assert (code, json.loads(printed)["detector"]) == (0, "onnx")


def test_a_file_that_is_no_detector_is_named(run, tiny_archive, tmp_path):
    picture, bad = tmp_path / "a.png", tmp_path / "bad.onnx"
    picture.write_bytes(b"no picture")
    bad.write_bytes(b"no detector")
    flags = ["--out", tmp_path / "scores.csv", "--model", tiny_archive, "--detector", bad]
    code, printed, told = run("score", picture, *flags)
    assert (code, printed) == (1, "")
    assert "bad.onnx: detector: ONNX Runtime refuses it" in told


async def test_the_engine_does_not_start_without_its_detector(tiny_archive, tmp_path):
    models = ModelsConfig(archives=(str(tiny_archive),), detector=str(tmp_path / "absent.onnx"))
    with pytest.raises(ArchiveError, match=r"absent\.onnx: expected a detector's ONNX file"):
        async with running_engine(EngineConfig(models=models), open_archives(models), Metrics()):
            pytest.fail("it began")
