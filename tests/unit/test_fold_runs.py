"""Fine-tuning by folds on a made-up CK+48 that a net learns at once."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from ferserve.training.data.errors import DataError
from ferserve.training.engine import StoppedError
from ferserve.training.fold_runs import read_small_set, train_folds
from ferserve.training.recipe import Phase
from ferserve.training.recipes.mobilenet import mobilenet_refined
from ferserve.training.runs import train_folds_run

RECIPE = replace(
    mobilenet_refined(),
    start="random",
    architecture="net_b_dal",
    phases=(Phase(epochs=1, input_size_px=32),),
    batch_size=4,
    optimisation=replace(mobilenet_refined().optimisation, rate=0.01, clip_norm=1.0),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten people, dark when angry and bright when happy, three frames each."""
    folder = tmp_path_factory.mktemp("ck48")
    for number, expression in enumerate(("anger", "happy")):
        (folder / expression).mkdir()
        for person, frame in itertools.product(range(10), range(3)):
            pixels = np.full((48, 48), 40 + 150 * number + person + frame, np.uint8)
            Image.fromarray(pixels).save(folder / expression / f"S{person:03d}_{number:03d}_{frame:08d}.png")
    return f"ck48={folder}"


@pytest.fixture(scope="module")
def small(data):
    return read_small_set(data, RECIPE, configuration="6-S-NC", detector=None)


def test_a_configuration_takes_its_frames_and_only_classes_that_occur(small):
    assert len(small.pictures) == 20
    assert small.used.tolist() == [0, 3]
    examples = small.examples(small.pictures.labels == 3)
    assert (examples.num_classes, set(examples.labels.tolist())) == (2, {1})
    assert examples.crops.shape == (10, 48, 48, 1)


def test_every_face_is_tested_by_a_net_that_did_not_see_its_person(small, tmp_path):
    seen = []
    result = train_folds(RECIPE, small, protocol="subjects", folder=tmp_path, start_weights=None, on_run=seen.append)
    assert [len(run.validation) for run in seen] == [4] * 5
    for run in seen:
        shades = [{int(shade) % 150 for shade in part.crops[:, 0, 0, 0]} for part in (run.fit, run.validation)]
        assert not shades[0] & shades[1]
    assert result.report.faces == 20
    assert sum(map(sum, result.report.confusion)) == 20
    assert len(result.folds) == 5
    assert np.mean(result.folds) == pytest.approx(result.report.accuracy.value)
    assert result.selected.value >= result.report.accuracy.value
    assert result.people is not None
    assert [len(rows) for rows in result.histories] == [1] * 5
    again = train_folds(RECIPE, small, protocol="subjects", folder=tmp_path, start_weights=None)
    assert replace(again, machine=result.machine) == result


def test_stopped_folds_go_on_and_the_result_is_written(data, tmp_path):
    arguments = {"folder": tmp_path, "start_weights": None, "protocol": "frames", "threads": 1}
    small = read_small_set(data, RECIPE, configuration=None, detector=None)

    def stop_the_second(run):
        if run.folder.name == "fold-2":
            run.ask_to_stop()

    with pytest.raises(StoppedError, match="the same command goes on"):
        train_folds(RECIPE, small, protocol="frames", folder=tmp_path, start_weights=None, on_run=stop_the_second)
    with Progress(disable=True) as progress:
        found = train_folds_run(RECIPE, data, **arguments, progress=progress)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["kind"] == "fine-tuning"
    assert written["report"]["accuracy"]["value"] == found.report.accuracy.value
    assert (written["protocol"], written["faces"], written["people_count"]) == ("frames", 60, 10)


def test_sets_of_other_things_are_refused(tmp_path):
    (tmp_path / "Ann").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "Ann" / "Ann_0001.jpg")
    with pytest.raises(DataError, match="expected a set of expressions, lfw is of kind identity"):
        read_small_set(f"lfw={tmp_path}", RECIPE, configuration=None, detector=None)
