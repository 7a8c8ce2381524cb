"""Runs that start from or learn from another run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ferserve.training.data.errors import DataError
from ferserve.training.engine import Run
from ferserve.training.examples import Examples
from ferserve.training.finish import calibrate_run, load_best
from ferserve.training.recipe import Phase
from ferserve.training.recipes.mobilenet import mobilenet_128
from ferserve.training.teachers import RunTeacher


def _faces(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    crops = (rng.integers(0, 60, (count, 48, 48, 1)) + 180 * labels[:, None, None, None]).astype(np.uint8)
    return Examples(crops=torch.from_numpy(crops), labels=torch.from_numpy(labels), votes=torch.zeros(count, 7))


FACES = {"fit": _faces(24, 0), "validation": _faces(16, 1)}
RECIPE = replace(
    mobilenet_128(), start="random", phases=(Phase(epochs=1, input_size_px=32),), batch_size=8, precision="fp32"
)


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("former")
    run = Run(RECIPE, **FACES, folder=folder, start_weights=None)
    list(run.epochs())
    calibrate_run(folder, RECIPE, run.validation, dropped={}, data_sha256="0" * 64)
    return folder


def test_a_run_starts_where_another_was_best(former, tmp_path):
    run = Run(replace(RECIPE, start="run"), **FACES, folder=tmp_path, start_weights=former)
    best = load_best(former, RECIPE)[0].state_dict()
    assert all(torch.equal(value, best[name]) for name, value in run.net.state_dict().items())


def test_the_vote_head_is_kept_with_the_run(former, tmp_path):
    recipe = replace(RECIPE, start="run", phases=(Phase(epochs=2, input_size_px=32),))
    stopped = Run(recipe, **FACES, folder=tmp_path, start_weights=former)
    next(stopped.epochs())
    resumed = Run(recipe, **FACES, folder=tmp_path, start_weights=None)
    head = stopped.loss.vote_head[1].weight
    assert torch.equal(resumed.loss.vote_head[1].weight, head)
    assert not torch.equal(
        head, Run(recipe, **FACES, folder=tmp_path / "new", start_weights=former).loss.vote_head[1].weight
    )


def test_a_teacher_is_read_from_its_run_and_not_trained(former, tmp_path):
    recipe = replace(RECIPE, objective=replace(RECIPE.objective, teacher_weight=0.5))
    teacher = RunTeacher.read(former, pupil=recipe)
    before = {name: value.clone() for name, value in teacher.net.state_dict().items()}
    assert teacher.recipe_sha256 == RECIPE.sha256
    list(Run(recipe, **FACES, folder=tmp_path, start_weights=None, teachers=[teacher]).epochs())
    assert all(torch.equal(value, before[name]) for name, value in teacher.net.state_dict().items())


class Asked:
    """A teacher that is sure of the last class and counts the faces that it is shown."""

    recipe_sha256 = "1" * 64

    def __init__(self):
        self.faces = 0

    def scores(self, x):
        self.faces += len(x)
        return torch.nn.functional.one_hot(torch.full((len(x),), 6), 7).float()


def test_a_teacher_of_crops_is_asked_once(tmp_path):
    objective = replace(RECIPE.objective, teacher_weight=0.5, teacher_sees="crops")
    recipe = replace(RECIPE, architecture="net_b", objective=objective, phases=(Phase(epochs=2, input_size_px=32),))
    teacher = Asked()
    run = Run(recipe, **FACES, folder=tmp_path, start_weights=None, teachers=[teacher])
    next(run.epochs())
    assert teacher.faces == 2 * 24
    assert run.taught_NK.tolist() == [[0.0] * 6 + [1.0]] * 24
    list(Run(recipe, **FACES, folder=tmp_path, start_weights=None, teachers=[teacher]).epochs())
    assert teacher.faces == 2 * 24
    fit = FACES["fit"]
    turned = Examples(crops=fit.crops.flip(0), labels=fit.labels.flip(0), votes=fit.votes)
    Run(recipe, **FACES | {"fit": turned}, folder=tmp_path, start_weights=None, teachers=[teacher])
    assert teacher.faces == 4 * 24, "what was said of one face is not taken for another"


def test_a_run_cut_otherwise_has_seen_the_validation_faces(former, tmp_path):
    other = replace(RECIPE, start="run", split_seed=2)
    with pytest.raises(DataError, match=r"expected a run with split_seed 2 and validation_share 0\.1, got 1 and 0\.1"):
        Run(other, **FACES, folder=tmp_path, start_weights=former)
    with pytest.raises(DataError, match="it has seen faces that this one is selected by"):
        RunTeacher.read(former, pupil=other)


def test_the_run_to_start_from_is_asked_for(tmp_path):
    with pytest.raises(DataError, match="starts from another run: expected --start-weights, got none"):
        Run(replace(RECIPE, start="run"), **FACES, folder=tmp_path, start_weights=None)
