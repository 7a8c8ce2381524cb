"""`ferserve torchserve bench` on a tiny archive: what is counted, and what is refused."""

import json

import numpy as np
import pytest
import torch
from tests.made_up.programs import Linear, export
from typer.testing import CliRunner

from ferserve.faces.archive import read_archive
from ferserve.faces.arrays import pack_array
from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.handlers import benchmark
from ferserve.handlers.benchmark import interval, measure
from ferserve.handlers.cli import torchserve


@pytest.fixture(scope="module")
def path(pack_archive, tiny_weights):
    return pack_archive("torch", program=export(Linear(tiny_weights)))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(benchmark, "MOST_CPU_FACES", 4)
    monkeypatch.setattr(benchmark, "TURN_S", 0.0)
    monkeypatch.setattr(benchmark, "PHOTOS", 3)


def run(*arguments):
    return CliRunner().invoke(torchserve, ["bench", "--device", "cpu", "--rounds", "2", *map(str, arguments)])


def test_each_batch_size_has_all_subjects_and_the_best_are_set_against_each_other(path, face_photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(face_photo)
    result = run(path, "--photo", tmp_path / "photo.png", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {size: sorted(rates) for size, rates in report["faces_per_s"].items()} == {
        size: ["handler", "host", "model"] for size in "124"
    }
    assert (report["bare"]["subject"], report["device"], report["precision"]) == ("model", "cpu", "fp32")
    assert 0 < report["kept"]["low"] <= report["kept"]["value"] <= report["kept"]["high"]
    assert report["agreement"]["faces"] == 1024
    assert report["agreement"]["max_difference"] < 1e-5
    photo = report["photo"]
    assert (photo["faces"], photo["photos"]) == (1, 3)
    assert set(photo["stages_ms"]) == {"decode", "detect", "preprocess", "infer", "other"}


def test_people_get_a_table(path):
    result = run(path)
    assert result.exit_code == 0, result.output
    assert "FaceHandler at its best batch" in result.stdout


def test_crops_of_ones_own_are_scored(path):
    crops = np.random.default_rng(5).integers(0, 256, (3, 24, 24, 1), dtype=np.uint8)
    report = measure(read_archive(path), device="cpu", crops=crops, rounds=2)
    assert (report.agreement.faces, report.agreement.same_top, report.photo) == (3, 1.0, None)


def test_crops_of_another_shape_are_refused(path, tmp_path):
    (tmp_path / "crops.npy").write_bytes(pack_array(np.zeros((3, 48, 48, 1), np.uint8)))
    result = run(path, "--crops", tmp_path / "crops.npy")
    assert isinstance(result.exception, InvalidRequestError)
    assert "expected uint8 of shape (N, 24, 24, 1), got uint8 of (3, 48, 48, 1)" in result.exception.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(path):
    result = run(path, "--device", "cuda:0")
    assert isinstance(result.exception, FerserveError)
    assert "torch finds no GPU here" in result.exception.message


def test_an_interval_is_that_of_the_mean():
    found = interval(np.array([1.0, 2.0, 3.0]))
    assert found.value == 2.0
    assert 1.0 <= found.low < 2.0 < found.high <= 3.0
