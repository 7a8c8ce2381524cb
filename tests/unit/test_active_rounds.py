"""Ranking and selecting by command: what is written, that it goes on, and what is refused."""

import json

import numpy as np
import pytest
from tests.made_up.campaigns import write_campaign
from typer.testing import CliRunner

from ferserve.faces.errors import ArchiveError
from ferserve.training.active.absorb import AbsorbSettings, lesson_recipe
from ferserve.training.active.labels import Act, Journal
from ferserve.training.active.patches import nine_patches
from ferserve.training.active.pool import Pool
from ferserve.training.active.rank import rank_faces, select_faces
from ferserve.training.active.report import render
from ferserve.training.active.rounds import Round, current_round, rounds_of, selected_before
from ferserve.training.active.selection import SelectionSettings
from ferserve.training.active.spec import crops_spec
from ferserve.training.active.worthiness import WorthSettings, measure_worth
from ferserve.training.cli.active import active
from ferserve.training.data.errors import DataError
from ferserve.training.recipes import RECIPES
from ferserve.training.scorers import open_scorer

COUNT = 30


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "campaign"
    write_campaign(folder, np.random.default_rng(0).integers(0, 256, (COUNT, 24, 24, 1), dtype=np.uint8))
    return folder


@pytest.fixture
def ranked(campaign, tiny_archive):
    pool = Pool(campaign)
    assert rank_faces(pool, open_scorer(str(tiny_archive)), current_round(campaign), WorthSettings())
    return pool


def _run(*arguments):
    return CliRunner().invoke(active, [str(argument) for argument in arguments])


def test_rank_writes_what_the_equations_say(campaign, tiny_archive):
    done = _run("rank", campaign, "--model", tiny_archive, "--alpha", "0.5", "--diversity-weight", "2")
    assert done.exit_code == 0, done.output
    pool, scorer = Pool(campaign), open_scorer(str(tiny_archive))
    crops = pool.crops(1)
    scores = scorer.score(nine_patches(crops).reshape(-1, 24, 24, 1)).reshape(len(crops), 9, 7)
    expected = measure_worth(scores, WorthSettings(alpha=0.5, diversity_weight=2.0))
    first = Round(campaign=campaign, number=1)
    with np.load(first.ranked(1)) as file:
        assert file["worth"] == pytest.approx(expected.worth)
        assert file["scores"] == pytest.approx(scorer.score(crops))
    assert first.rank()["model_sha256"] == scorer.sha256
    assert (first.rank()["alpha"], first.rank()["patch_share"]) == (0.5, 0.75)


def test_a_ranking_that_was_stopped_goes_on(campaign, tiny_archive):
    pool, first = Pool(campaign), current_round(campaign)
    scorer = open_scorer(str(tiny_archive))
    stops = iter([False, True])
    assert not rank_faces(pool, scorer, first, WorthSettings(), should_stop=lambda: next(stops))
    with pytest.raises(DataError, match="expected every shard ranked, 1 of 2 are not; `ferserve active rank"):
        select_faces(pool, first, SelectionSettings(faces=3), taken=set())
    faces: list[int] = []
    assert rank_faces(pool, scorer, first, WorthSettings(), on_face=faces.append)
    assert sum(faces) == COUNT


def test_select_is_seeded_and_done_once(campaign, ranked):
    assert _run("select", campaign, "--faces", "5", "--seed", "3").exit_code == 0
    first = Round(campaign=campaign, number=1)
    chosen = first.selected()
    assert len(set(chosen)) == 5
    assert all(face in ranked for face in chosen)
    assert (first.selection()["strategy"], first.selection()["left"]) == ("active", COUNT)
    again = _run("select", campaign, "--faces", "5")
    assert isinstance(again.exception, DataError)
    assert "round 1 has its faces already" in again.exception.message
    first.selection_file.unlink()
    assert select_faces(ranked, first, SelectionSettings(faces=5, seed=3), taken=set()) == chosen


def test_faces_are_asked_about_once(campaign, ranked):
    first = current_round(campaign)
    chosen = select_faces(ranked, first, SelectionSettings(faces=COUNT - 4, strategy="random"), taken=set())
    assert selected_before(campaign, 2) == set(chosen)
    first.selection_file.unlink()
    left = select_faces(ranked, first, SelectionSettings(faces=100), taken=set(chosen))
    assert sorted([*left, *chosen]) == sorted(ranked.ids())
    first.selection_file.unlink()
    with pytest.raises(DataError, match="expected a face that nobody was asked about, all 30 were"):
        select_faces(ranked, first, SelectionSettings(faces=1), taken=set(ranked.ids()))


@pytest.mark.usefixtures("ranked")
def test_rounds_follow_each_other(campaign):
    assert current_round(campaign).number == 1
    assert [one.number for one in rounds_of(campaign)] == [1]
    Round(campaign=campaign, number=1).absorb_file.write_text("{}")
    assert current_round(campaign).number == 2


@pytest.mark.usefixtures("ranked")
def test_what_does_not_fit_is_refused(campaign, tiny_archive):
    other = _run("rank", campaign, "--model", tiny_archive, "--alpha", "1.0")
    assert "round 1 was begun with another alpha" in other.exception.message
    crops = _run("rank", campaign, "--model", "default")
    assert "expected a model that the crops were built for" in crops.exception.message
    assert isinstance(_run("rank", campaign, "--model", "nothing").exception, ArchiveError)
    assert _run("rank", campaign, "--alpha", "2").exit_code == 2
    assert _run("select", campaign, "--faces", "3", "--strategy", "best").exit_code == 2
    missing = _run("rank", campaign / "nowhere", "--model", tiny_archive)
    assert "found none; `ferserve active build" in missing.exception.message


def test_crops_are_cut_for_a_model(tiny_archive):
    assert crops_spec(str(tiny_archive)).size_px == 24
    assert crops_spec("dal-net-144") == RECIPES["dal-net-144"]().preprocess
    with pytest.raises(DataError, match=r"--crops-for: expected a run's folder, an archive, or a recipe of .* got 'x'"):
        crops_spec("x")


def test_a_report_may_come_before_the_end(campaign, tiny_archive):
    assert "Round 1" not in render(campaign)
    rank_faces(Pool(campaign), open_scorer(str(tiny_archive)), current_round(campaign), WorthSettings())
    page = render(campaign)
    assert "Ranked by tiny.mar" in page
    assert "faces by worth" in page


def test_a_report_of_a_round_asks_nobody_for_anything(campaign, ranked):
    first = current_round(campaign)
    chosen = select_faces(ranked, first, SelectionSettings(faces=4), taken=set())
    journal = Journal(campaign, is_face=ranked.__contains__)
    for face, labeller, answer in (
        (chosen[0], "Ana", "happy"), (chosen[0], "<b>Ben</b>", "happy"), (chosen[1], "Ana", "none"),
    ):  # fmt: skip
        journal.append(Act(act="label", round=1, face=face, labeller=labeller, answer=answer))
    page = render(campaign)
    assert page.count("data:image/png;base64,") == 4
    assert "left out: no face" in page
    assert page.count("not labelled<br>") == 2
    assert "&lt;b&gt;Ben&lt;/b&gt;, Ana" in page
    assert "default-src 'none'" in page
    for outward in ("http://", "https://", "<script", "url("):
        assert outward not in page
    assert _run("report", campaign).exit_code == 0
    assert (campaign / "report.html").read_text() == page
    assert json.loads((campaign / "web.json").read_text())["pictures"] == COUNT + 1


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-teacher", "transfer-resnet50", "net-b", "alexnet"])
def test_a_lesson_can_be_made_of_every_recipe(name):
    former = RECIPES[name]()
    lesson = lesson_recipe(former, AbsorbSettings(), name="lesson", faces=20)
    assert (lesson.start, lesson.unlabelled, lesson.augmentation.mixup) == ("run", (), 0.0)
    assert lesson.objective.teacher_weight == 0.0
    assert lesson.batch_size == 20
