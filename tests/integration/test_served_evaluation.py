"""`ferserve evaluate --served` from a data set's folder to figures, with real detectors and a made-up archive."""

import csv
import json

import cv2
import numpy as np
import pytest
import skimage.data

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.cli import main
from ferserve.training.data.errors import DataError
from ferserve.training.scenes_with_faces import SceneSettings
from ferserve.training.served_evaluation import ServedOptions, evaluate_served


@pytest.fixture
def run(capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory):
    """FER-2013's layout with one real face four times, as its crops frame one, and a flat picture that is none."""
    folder = tmp_path_factory.mktemp("fer2013")
    head = cv2.cvtColor(skimage.data.astronaut()[70:200, 160:290], cv2.COLOR_RGB2GRAY)
    face = cv2.resize(head, (48, 48), interpolation=cv2.INTER_AREA)
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for label in (3, 3, 6, 0):
            writer.writerow([label, " ".join(map(str, face.ravel())), "PublicTest"])
        writer.writerow([6, " ".join(["128"] * 48 * 48), "PublicTest"])
    return f"fer2013={folder}"


@pytest.fixture(scope="module")
def expw_scenes(tmp_path_factory):
    """A photo with one red cell, where the red detector finds a face, and one with a labelled face that it misses."""
    folder = tmp_path_factory.mktemp("expw_scenes")
    (folder / "image").mkdir()
    grey = np.full((300, 400, 3), 90, np.uint8)
    cv2.imwrite(str(folder / "image" / "b.png"), grey)
    grey[64:72, 64:72] = (0, 0, 255)
    cv2.imwrite(str(folder / "image" / "a.png"), grey)
    (folder / "label.lst").write_text("a.png 0 60 60 76 76 100 3\nb.png 1 10 10 40 40 100 4\n")
    return f"expw_scenes={folder}"


def test_faces_are_found_in_scenes_and_scored_beside_their_crops(fer2013, tiny_archive):
    scenes = SceneSettings(min_side_px=120, max_side_px=160)
    found = evaluate_served(str(tiny_archive), ServedOptions(data=fer2013, detector="haar", scenes=scenes))
    report = found.report
    assert (report.faces, report.photos) == (5, 2)
    assert report.found.value == 4 / 5
    # One picture under three labels: at most two of four can be right, served or cropped.
    assert report.accuracy.value <= 2 / 5
    assert report.cropped_found.value in {0, 1 / 4, 1 / 2}
    assert (found.split, found.detector, found.detector_sha256) == ("public", "haar", None)
    assert found.preprocess_sha256 == PreprocessSpec(size_px=24, channels=1).sha256


def test_photos_may_stand_behind_the_faces(fer2013, expw_scenes, tiny_archive):
    options = ServedOptions(data=fer2013, detector="haar", backgrounds=expw_scenes)
    found = evaluate_served(str(tiny_archive), options)
    assert (found.backgrounds, found.report.faces) == ("expw_scenes", 5)


def test_labelled_photos_are_a_data_set_of_their_own(run, expw_scenes, tiny_archive, red_detector, tmp_path):
    call = ("evaluate", tiny_archive, "--data", expw_scenes, "--served", "--detector", red_detector)
    code, printed, err = run(*call, "--json", "--result", tmp_path / "result.json")
    assert (code, err) == (0, "")
    values = json.loads(printed)
    assert values == json.loads((tmp_path / "result.json").read_text())
    assert (values["kind"], values["split"], values["faces"], values["photos"]) == ("served", None, 2, 2)
    assert values["found"]["value"] == 1 / 2
    assert len(values["detector_sha256"]) == 64
    assert set(values) >= {"accuracy", "cropped", "paired", "by_size", "machine", "archive_sha256"}
    code, printed, _ = run(*call)
    assert code == 0
    assert "50.00 %" in printed
    assert "noisy" in printed


def test_calls_that_contradict_themselves_are_refused(run, fer2013, expw_scenes, tiny_archive, tmp_path):
    for extra in (["--split", "train-validation"], ["--detector", "haar"], ["--backgrounds", expw_scenes]):
        code, _, err = run("evaluate", tiny_archive, "--data", fer2013, *extra)
        assert code == 2
        assert "--served" in err
    code, _, err = run("evaluate", tiny_archive, "--data", fer2013, "--served", "--plots", tmp_path)
    assert code == 2
    assert "--plots" in err
    code, _, err = run("evaluate", tiny_archive, "--data", expw_scenes, "--served", "--backgrounds", expw_scenes)
    assert code == 1
    assert "labelled photos have their own" in err


def test_what_is_not_there_is_named(fer2013, tiny_archive):
    with pytest.raises(DataError, match="expected rows of split private, found splits public"):
        evaluate_served(str(tiny_archive), ServedOptions(data=fer2013, detector="haar", split="private"))
    with pytest.raises(DataError, match="expected the recipe with SHA-256 0000"):
        evaluate_served(str(tiny_archive), ServedOptions(data=fer2013, detector="haar", split="train-validation"))
    with pytest.raises(DataError, match="each of 0 faces"):  # no votes, so no face has a majority
        evaluate_served(str(tiny_archive), ServedOptions(data=fer2013, detector="haar", labels="ferplus"))
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        ServedOptions(data=fer2013, detector="haar", threads=0)
