"""Two rounds of active learning with a real net, in small: rank, select, label, absorb, and an archive of the end."""

import csv
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from rich.progress import Progress
from tests.made_up.campaigns import write_campaign
from typer.testing import CliRunner

from ferserve.faces.cpu import Cpu
from ferserve.training.active.descriptors import open_descriptor
from ferserve.training.active.desk import Desk
from ferserve.training.active.pool import Pool
from ferserve.training.active.report import render
from ferserve.training.active.rounds import Round, current_round
from ferserve.training.cli.active import active
from ferserve.training.data.errors import DataError
from ferserve.training.finish import load_best
from ferserve.training.origin import Origin
from ferserve.training.pack import pack_run
from ferserve.training.recipe import Phase, Recipe
from ferserve.training.recipes.mobilenet import CROPS
from ferserve.training.runs import find_recipe, train_run
from ferserve.training.scorers import open_scorer

FACES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FER-2013's layout with 64 made-up faces: dark ones are angry, bright ones happy."""
    folder = tmp_path_factory.mktemp("fer2013")
    rng = np.random.default_rng(0)
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for usage in ["Training"] * 48 + ["PublicTest"] * 16:
            label = int(rng.integers(0, 2)) * 3
            writer.writerow([label, " ".join(map(str, rng.integers(0, 60, 2304) + 60 * label)), usage])
    return f"fer2013={folder}"


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    full = find_recipe("mobilenet-few")
    recipe = replace(
        full,
        start="random",
        phases=(Phase(epochs=1, input_size_px=32),),
        batch_size=16,
        fit_faces=32,
    )
    with Progress(disable=True) as progress:
        train_run(recipe, data, folder=folder, start_weights=None, threads=1, progress=progress)
    return folder


def _run(*arguments):
    return CliRunner().invoke(active, [str(argument) for argument in arguments])


def _label(campaign, *, wrong_for):
    """Everybody answers by brightness, but for some faces."""
    desk = Desk(Pool(campaign), current_round(campaign))
    for face in desk.faces:
        bright = desk.pool.crops_of([face]).mean() > 120
        desk.label("Ana", face, ("angry", "happy")[bool(bright) ^ (face in wrong_for)], saw_guess=False)
    return desk.faces


@pytest.fixture(scope="module")
def campaign(data, start, tmp_path_factory):
    """Two rounds; `mobilenet-few` fitted on 32 faces begins."""
    folder = tmp_path_factory.mktemp("web") / "campaign"
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 60, (20, 48, 48, 1)) + 180 * rng.integers(0, 2, (20, 1, 1, 1))
    write_campaign(folder, crops.astype(np.uint8), spec=CROPS)
    for number in (1, 2):
        ranked = _run("rank", folder, *(("--model", start) if number == 1 else ()))
        assert ranked.exit_code == 0, ranked.output
        assert _run("select", folder, "--faces", FACES).exit_code == 0
        early = _run("absorb", folder, "--data", data)
        assert f"round {number}: expected a label of every face, {FACES} have none" in early.exception.message
        _label(folder, wrong_for=())
        cheap = ("--frozen-groups", "13") if number == 1 else ("--last-layer",)
        learnt = _run("absorb", folder, "--data", data, "--epochs", "2", "--rate", "0.05", *cheap)
        assert learnt.exit_code == 0, learnt.output
    return folder


def test_few_faces_are_fitted_on(start):
    assert Recipe.read(start / "recipe.json").fit_faces == 32


def test_each_round_starts_from_the_one_before(campaign, start):
    rounds = [Round(campaign=campaign, number=number) for number in (1, 2)]
    assert [one.rank()["model"] for one in rounds] == [str(start), str(rounds[0].run)]
    assert not set(rounds[0].selected()) & set(rounds[1].selected())
    recipes = [Recipe.read(one.run / "recipe.json") for one in rounds]
    assert [recipe.name for recipe in recipes] == ["mobilenet-few-active-1", "mobilenet-few-active-2"]
    assert [(recipe.frozen_groups, recipe.trained) for recipe in recipes] == [(13, ()), (0, ("classifier",))]
    assert Origin.read(rounds[1].run) == Origin(start=("fer2013",), data="web")
    assert current_round(campaign).number == 3


def test_what_is_frozen_stays(campaign, start):
    folders = [start, *(Round(campaign=campaign, number=number).run for number in (1, 2))]
    nets = [load_best(folder, Recipe.read(folder / "recipe.json"))[0].state_dict() for folder in folders]
    changed = [
        {name.partition(".")[0] for name in new if not torch.equal(former[name], new[name])}
        for former, new in pairwise(nets)
    ]
    assert changed[0] <= {"blocks", "classifier"}
    assert changed[1] == {"classifier"}
    stem_and_first_blocks = [name for name in nets[0] if name.startswith(("stem", "blocks.0.", "blocks.11."))]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in stem_and_first_blocks)


def test_a_round_learns_the_new_and_what_the_model_has_wrong(campaign):
    first, second = (Round(campaign=campaign, number=number).absorbed() for number in (1, 2))
    assert (first["new"], first["wrong_earlier"]) == (FACES, 0)
    # The second round's model is the first round's run: what that says of the first round's faces decides.
    pool, one = Pool(campaign), Round(campaign=campaign, number=1)
    scorer = open_scorer(str(one.run))
    faces = one.selected()
    said = scorer.score(pool.crops_of(faces)).argmax(axis=1)
    truth = np.where(pool.crops_of(faces).mean(axis=(1, 2, 3)) > 120, 3, 0)
    assert second["wrong_earlier"] == int((said != truth).sum())
    assert second["labels"]["angry"] + second["labels"]["happy"] == FACES


def test_the_report_has_every_round(campaign):
    page = render(campaign)
    assert '<section id="round-2">' in page
    assert "validation before" in page


def test_the_last_run_becomes_an_archive_that_names_its_source(campaign, data):
    run = Round(campaign=campaign, number=2).run
    archive = pack_run(run, data, out=run / "made.mar", threads=1, cpu=Cpu(name="Older CPU", vnni=False))
    sources = {source.name: source.role for source in archive.manifest.data}
    web = "faces cut from web pictures and labelled by hand (`ferserve active`)"
    assert sources[web] == "labels and pictures of the last fit"
    assert sources["FER-2013 Training, a part"] == "temperature and threshold"
    assert "FER-2013 PublicTest" in sources
    assert open_scorer(str(archive.path)).sha256 == archive.sha256


def test_without_labels_nothing_is_learnt(campaign, data, tmp_path):
    folder = tmp_path / "campaign"
    write_campaign(folder, np.zeros((4, 48, 48, 1), np.uint8), spec=CROPS)
    run = Round(campaign=campaign, number=2).run
    assert _run("rank", folder, "--model", run).exit_code == 0
    assert _run("select", folder, "--faces", "2").exit_code == 0
    refused = _run("absorb", folder, "--data", data, "--unfinished")
    assert isinstance(refused.exception, DataError)
    assert "expected at least 2 faces of round 1 with a label of the seven, got 0 of 2" in refused.exception.message


def test_a_runs_features_leave_aside_what_they_learnt_from(campaign, start):
    descriptor = open_descriptor(str(start), threads=1)
    crops = Pool(campaign).crops(0)
    assert descriptor.read(crops).shape == (len(crops), 1024)
    assert len(descriptor.learnt(40)) == 32
    assert len(open_descriptor("hog", threads=1).learnt(40)) == 0
