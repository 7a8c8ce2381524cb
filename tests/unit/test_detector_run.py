import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ferserve.training.data.errors import DataError
from ferserve.training.descent import DivergedError
from ferserve.training.detector.batches import Batch, ahead
from ferserve.training.detector.geometry import cell_grid, encode
from ferserve.training.detector.recipe import View, ferdet
from ferserve.training.detector.run import Check, DetectorRun, load_net

SIDE = 64
GRID = cell_grid(SIDE, SIDE)


class SquareBatches:
    """A bright square on black; the cell at its centre is to say so."""

    def __init__(self, broken_from=1000):
        self.broken_from = broken_from

    def batch(self, step):
        rng = np.random.default_rng(step)
        pictures, aims = np.zeros((2, 3, SIDE, SIDE), np.uint8), np.zeros((2, len(GRID), 15), np.float32)
        for picture, aim in zip(pictures, aims, strict=True):
            column, row = rng.integers(1, 7, 2)
            x, y = 8 * column, 8 * row
            picture[:, y - 8 : y + 8, x - 8 : x + 8] = 250
            cell = row * (SIDE // 8) + column
            box = np.array([[x - 8, y - 8, x + 8, y + 8]], np.float32)
            aim[cell, 0] = 1.0
            aim[cell, 1:] = encode(box, np.full((1, 5, 2), (x, y), np.float32), GRID[[cell]])[0]
        if step >= self.broken_from:
            aims[:] = np.nan
        return Batch(pictures=torch.from_numpy(pictures), targets=torch.from_numpy(aims), grid=torch.from_numpy(GRID))


@pytest.fixture
def recipe():
    full = ferdet()
    return replace(
        full,
        views=(View(size_px=SIDE, pictures=2),),
        steps_per_epoch=4,
        epochs=3,
        precision="fp32",
        optimisation=replace(full.optimisation, warmup_epochs=0.5),
    )


def _check(_net):
    return Check(recall=0.5, unmatched_per_photo=0.0, landmark_error=0.1)


def _run(recipe, folder, start=None, check=_check, **changes):
    return DetectorRun(recipe, SquareBatches(**changes), start=start, check=check, folder=folder)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(recipe, tmp_path):
    whole = list(_run(recipe, tmp_path / "whole").epochs())
    parts = list(itertools.islice(_run(recipe, tmp_path / "parts").epochs(), 1))
    parts += list(_run(recipe, tmp_path / "parts").epochs())
    assert [row.epoch for row in parts] == [1, 2, 3]
    assert [row.loss for row in parts] == [row.loss for row in whole]
    nets = [load_net(tmp_path / name)[0].state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert len((tmp_path / "parts" / "history.jsonl").read_text().splitlines()) == 3


def _ones(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.01)


def test_the_result_has_gone_a_part_of_the_way_back_to_its_start(recipe, tmp_path):
    checked = []

    def check(net):
        checked.append(net.stem.weight.clone())
        return _check(net)

    recipe = replace(recipe, start_share=0.25)
    list(itertools.islice(_run(recipe, tmp_path, _ones).epochs(), 1))
    # A run that goes on knows where it began.
    run = _run(recipe, tmp_path, _ones, check)
    list(run.epochs())
    averaged = run.average.net.stem.weight
    assert (averaged != 0.01).any()
    assert torch.allclose(load_net(tmp_path)[0].stem.weight, 0.75 * averaged + 0.25 * 0.01)
    assert torch.equal(checked[-1], load_net(tmp_path)[0].stem.weight)


def test_a_random_start_is_nothing_to_go_back_to(recipe, tmp_path):
    run = _run(replace(recipe, start_share=0.25), tmp_path)
    list(run.epochs())
    assert torch.equal(load_net(tmp_path)[0].stem.weight, run.average.net.stem.weight)


def test_the_loss_falls(recipe, tmp_path):
    quick = replace(recipe, epochs=4, steps_per_epoch=8, optimisation=replace(recipe.optimisation, rate=4e-3))
    rows = list(_run(quick, tmp_path).epochs())
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert rows[-1].score_loss < rows[0].score_loss
    assert rows[-1].rate < rows[0].rate


def test_the_steps_done_are_told(recipe, tmp_path):
    told = []
    list(_run(recipe, tmp_path).epochs(lambda done, loss: told.append((done, loss > 0))))
    assert told == [(step, True) for step in range(1, 13)]


def test_another_recipe_does_not_take_over_a_folder(recipe, tmp_path):
    list(itertools.islice(_run(recipe, tmp_path).epochs(), 1))
    with pytest.raises(DataError, match="choose another --out"):
        _run(replace(recipe, seed=2), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(recipe, tmp_path):
    rows = _run(recipe, tmp_path, broken_from=5).epochs()
    assert next(rows).epoch == 1
    with pytest.raises(DivergedError, match="loss is nan at step 5"):
        next(rows)
    assert load_net(tmp_path)[2] == 1


def test_a_run_without_an_epoch_has_no_net(recipe, tmp_path):
    _run(recipe, tmp_path)
    with pytest.raises(DataError, match="no trained weights yet"):
        load_net(tmp_path)


def test_batches_come_in_their_order():
    assert list(ahead(lambda step: step, range(3, 40), workers=3)) == list(range(3, 40))


def test_a_failing_batch_is_not_swallowed():
    def fail(step):
        raise DataError(f"step {step}")

    with pytest.raises(DataError, match="step 0"):
        list(ahead(fail, range(9), workers=2))
