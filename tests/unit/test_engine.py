import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ferserve.training.data.errors import DataError
from ferserve.training.descent import DivergedError, rate_at
from ferserve.training.engine import Run
from ferserve.training.examples import Examples
from ferserve.training.finish import Calibration, calibrate_run, load_best
from ferserve.training.recipe import Phase, Recipe
from ferserve.training.recipes import RECIPES


def _faces(count, seed):
    """Bright and dark squares: two classes that any net learns."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    crops = (rng.integers(0, 60, (count, 48, 48, 1)) + 180 * labels[:, None, None, None]).astype(np.uint8)
    return Examples(crops=torch.from_numpy(crops), labels=torch.from_numpy(labels), votes=torch.zeros(count, 7))


@pytest.fixture
def recipe():
    full = RECIPES["mobilenet"]()
    return replace(
        full,
        start="random",
        phases=(Phase(epochs=1, input_size_px=32), Phase(epochs=2, input_size_px=48)),
        batch_size=8,
        precision="fp32",
        optimisation=replace(full.optimisation, warmup_epochs=0.0),
    )


def _run(recipe, folder):
    return Run(recipe, fit=_faces(24, 0), validation=_faces(16, 1), folder=folder, start_weights=None)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(recipe, tmp_path):
    whole = list(_run(recipe, tmp_path / "whole").epochs())
    parts = list(itertools.islice(_run(recipe, tmp_path / "parts").epochs(), 1))
    parts += list(_run(recipe, tmp_path / "parts").epochs())
    assert [r.epoch for r in parts] == [1, 2, 3]
    assert [r.input_size_px for r in parts] == [32, 48, 48]
    assert [r.loss for r in parts] == [r.loss for r in whole]
    assert [r.validation_loss for r in parts] == [r.validation_loss for r in whole]
    assert list(_run(recipe, tmp_path / "parts").epochs()) == []


def test_another_recipe_does_not_take_over_a_folder(recipe, tmp_path):
    list(itertools.islice(_run(recipe, tmp_path).epochs(), 1))
    with pytest.raises(DataError, match="choose another --out"):
        _run(replace(recipe, seed=2), tmp_path)


def test_patience_ends_a_run(recipe, tmp_path):
    patient = replace(recipe, phases=(Phase(epochs=6, input_size_px=32),), patience_epochs=1)
    run = _run(patient, tmp_path)
    rows = list(run.epochs())
    assert len(rows) == min(6, run.progress.best_epoch + 1)


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_named(recipe, tmp_path):
    run = _run(recipe, tmp_path)
    with torch.no_grad():
        run.net.classifier.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"loss is nan at step 0; the last checkpoint is .*last\.pt"):
        list(run.epochs())


def test_face_weights_are_asked_for(recipe, tmp_path):
    with pytest.raises(DataError, match="expected --start-weights, got none"):
        _run(replace(recipe, start="faceres"), tmp_path)


def test_rate_warms_up_and_falls_to_zero(recipe):
    settings = replace(recipe.optimisation, rate=1.0)
    settings = replace(settings, warmup_epochs=1.0)
    rates = [rate_at(s, steps_per_epoch=10, epochs=11, settings=settings) for s in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_a_finished_run_is_calibrated_and_read_back(recipe, tmp_path):
    with pytest.raises(DataError, match="no trained weights"):
        load_best(tmp_path, recipe)
    with pytest.raises(DataError, match="no finished run"):
        Calibration.read(tmp_path)
    run = _run(recipe, tmp_path)
    list(run.epochs())
    written = calibrate_run(tmp_path, recipe, run.validation, dropped={"tie": 1}, data_sha256="0" * 64)
    assert Calibration.read(tmp_path) == written
    assert Recipe.read(tmp_path / "recipe.json") == recipe
    assert written.scaling.temperature > 0
    assert written.epoch == run.progress.best_epoch


def test_a_recipe_file_that_is_none_is_named(tmp_path):
    with pytest.raises(DataError, match="found none"):
        Recipe.read(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match="is no recipe"):
        Recipe.read(tmp_path / "recipe.json")
