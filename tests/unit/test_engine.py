import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ferserve.training.data.errors import DataError
from ferserve.training.descent import DivergedError, rate_at
from ferserve.training.engine import Run, StoppedError, read_history
from ferserve.training.examples import Examples
from ferserve.training.finish import Calibration, calibrate_run, load_best
from ferserve.training.recipe import Phase, Recipe, Schedule
from ferserve.training.recipes import RECIPES
from ferserve.training.whole_files import StorageError


def _faces(count, seed):
    """Bright and dark squares: two classes that any net learns."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    crops = (rng.integers(0, 60, (count, 48, 48, 1)) + 180 * labels[:, None, None, None]).astype(np.uint8)
    return Examples(crops=torch.from_numpy(crops), labels=torch.from_numpy(labels), votes=torch.zeros(count, 7))


@pytest.fixture
def recipe():
    full = RECIPES["mobilenet-128"]()
    return replace(
        full,
        start="random",
        phases=(Phase(epochs=1, input_size_px=32), Phase(epochs=2, input_size_px=48)),
        batch_size=8,
        precision="fp32",
        optimisation=replace(full.optimisation, warmup_epochs=0.0),
    )


@pytest.fixture
def small(recipe):
    """A net without batch norm, quick to save."""
    return replace(recipe, architecture="net_b_dal", phases=(Phase(epochs=2, input_size_px=32),))


def _run(recipe, folder, **options):
    return Run(recipe, fit=_faces(24, 0), validation=_faces(16, 1), folder=folder, start_weights=None, **options)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(recipe, tmp_path):
    whole = list(_run(recipe, tmp_path / "whole").epochs())
    parts = list(itertools.islice(_run(recipe, tmp_path / "parts").epochs(), 1))
    parts += list(_run(recipe, tmp_path / "parts").epochs())
    assert [r.epoch for r in parts] == [1, 2, 3]
    assert [r.input_size_px for r in parts] == [32, 48, 48]
    assert [r.loss for r in parts] == [r.loss for r in whole]
    assert [r.validation_loss for r in parts] == [r.validation_loss for r in whole]
    assert list(_run(recipe, tmp_path / "parts").epochs()) == []


def test_an_epoch_of_several_views_sees_every_face_as_often(small, tmp_path):
    several = replace(small, views=3)
    run = _run(several, tmp_path)
    order = run._order()
    assert torch.equal(torch.bincount(order), torch.full((24,), 3))
    assert not torch.equal(order[:24], order[24:48])
    assert run.steps_per_epoch == 9
    steps = []
    next(run.epochs(lambda step, _loss: steps.append(step)))
    assert steps == list(range(9))


def test_another_recipe_does_not_take_over_a_folder(recipe, tmp_path):
    list(itertools.islice(_run(recipe, tmp_path).epochs(), 1))
    with pytest.raises(DataError, match="choose another --out"):
        _run(replace(recipe, seed=2), tmp_path)


def test_a_run_stopped_within_an_epoch_loses_no_step(small, tmp_path):
    whole = list(_run(small, tmp_path / "whole").epochs())
    run = _run(small, tmp_path / "parts")

    def stop_at_the_second(step, _loss):
        if step == 1:
            run.ask_to_stop()

    with pytest.raises(StoppedError, match=r"stopped after step 2 of 3 in epoch 1; .*last\.pt has it all"):
        list(run.epochs(stop_at_the_second))
    assert read_history(tmp_path / "parts") == []
    steps = []
    rows = list(_run(small, tmp_path / "parts").epochs(lambda step, _loss: steps.append(step)))
    assert steps[0] == 2
    assert [(r.loss, r.validation_loss) for r in rows] == [(r.loss, r.validation_loss) for r in whole]


def test_a_killed_run_has_a_checkpoint_of_some_minutes_ago(small, tmp_path):
    """A clock that goes a hundred seconds a glance: after every few steps five minutes are over."""
    ticks = itertools.count(0, 100)
    run = _run(small, tmp_path, clock=lambda: next(ticks))

    def die_at_the_third(step, _loss):
        if step == 2:
            raise SystemExit

    with pytest.raises(SystemExit):
        list(run.epochs(die_at_the_third))
    assert _run(small, tmp_path).progress.step == 2


def test_a_full_disk_is_named_and_leaves_the_former_checkpoint(small, tmp_path):
    run = _run(small, tmp_path)
    epochs = run.epochs()
    next(epochs)
    former = run.last.read_bytes()
    (tmp_path / "last.pt.partial").symlink_to("/dev/full")
    with pytest.raises(
        StorageError, match=r"last\.pt cannot be written: No space left on device; the former file stands"
    ):
        next(epochs)
    assert run.last.read_bytes() == former
    assert not (tmp_path / "last.pt.partial").exists()
    assert [row.epoch for row in _run(small, tmp_path).epochs()] == [2]
    assert [row.epoch for row in read_history(tmp_path)] == [1, 2]


def test_a_history_that_lacks_its_last_row_is_mended(small, tmp_path):
    run = _run(small, tmp_path)
    rows = list(run.epochs())
    (tmp_path / "history.jsonl").unlink()
    assert list(_run(small, tmp_path).epochs()) == []
    assert read_history(tmp_path) == rows


def test_a_plateau_lowers_the_rate(small, tmp_path):
    schedule = Schedule(kind="plateau", factor=0.5, every_epochs=2)
    flat = replace(small, optimisation=replace(small.optimisation, schedule=schedule), patience_epochs=9)
    run = _run(flat, tmp_path)
    better = [run._note(accuracy) for accuracy in (0.5, 0.4, 0.5, 0.5, 0.6, 0.5)]
    assert better == [True, False, False, False, True, False]
    assert (run.progress.stalls, run.progress.waited) == (1, 1)


def test_frozen_groups_keep_their_weights_and_statistics(small, tmp_path):
    frozen = replace(small, architecture="mobilenet_v1", frozen_groups=2)
    run = _run(frozen, tmp_path)
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    list(run.epochs())
    moved = {name for name, value in run.net.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in moved if name.startswith(("stem.", "blocks.0."))}
    assert {"blocks.1.0.conv.weight", "blocks.1.0.norm.running_mean", "classifier.weight"} <= moved


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
