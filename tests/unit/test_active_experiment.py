"""The experiment on made-up features, and end to end on made-up data sets."""

import json

import cv2
import numpy as np
import pytest
from tests.made_up import data_sets as made_up
from typer.testing import CliRunner

from ferserve.training.active.experiment import summarise
from ferserve.training.active.held_labels import NO_MAJORITY, UNLABELLED
from ferserve.training.active.simulation import (
    Curve,
    ExperimentSettings,
    Features,
    labels_needed,
    play,
    scores_of,
)
from ferserve.training.cli.active import active
from ferserve.training.probe import fit_probe

SETTINGS = ExperimentSettings(start_labels=20, round_labels=30, rounds=3, seeds=(1, 2))


def _clusters(rng, count, *, spread=1.0):
    labels = rng.integers(0, 7, count)
    return (3 * np.eye(7)[labels] + spread * rng.normal(size=(count, 7))).astype(np.float16), labels


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    start, web, test = (_clusters(rng, count) for count in (200, 400, 300))
    web_labels = web[1].copy()
    web_labels[:10] = UNLABELLED
    votes = test[1].copy()
    votes[:50] = NO_MAJORITY
    patches = (web[0][:, None] + 0.5 * rng.normal(size=(400, 9, 7))).astype(np.float16)
    return Features(
        start_ND=start[0], start_labels=start[1], web_ND=web[0], web_NMD=patches, web_labels=web_labels,
        test_TD=test[0], test_labels=test[1], test_votes=votes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def curves(features):
    return {strategy: play(features, SETTINGS, strategy, 1) for strategy in SETTINGS.strategies}


def test_strategies_share_their_start_and_learn(curves):
    assert len({curve.accuracy[0] for curve in curves.values()}) == 1
    for curve in curves.values():
        assert len(curve.accuracy) == len(curve.ferplus) == 4
        assert curve.accuracy[-1] > curve.accuracy[0]
        assert sum(curve.revealed) == 90
    assert len({curve.accuracy[1:] for curve in curves.values()}) == 3


def test_a_play_can_be_repeated(features, curves):
    assert play(features, SETTINGS, "active", 1) == curves["active"]
    assert play(features, SETTINGS, "active", 2) != curves["active"]


def test_scores_in_chunks_are_the_probes_own(features):
    model = fit_probe(features.start_ND.astype(np.float32), features.start_labels, 7, penalty=0.3)
    expected = model.scores(features.test_TD.astype(np.float32))
    assert scores_of(model, features.test_TD) == pytest.approx(expected, abs=1e-5)


def test_labels_needed_by_hand():
    counts, accuracy = (0, 100, 200), (0.4, 0.5, 0.6)
    assert labels_needed(counts, accuracy, 0.55) == pytest.approx(150)
    assert labels_needed(counts, accuracy, 0.4) == 0
    assert labels_needed(counts, accuracy, 0.7) is None
    assert labels_needed(counts, (0.4, 0.3, 0.6), 0.5) == pytest.approx(100 + 100 * 2 / 3)


def _curve(strategy, seed, accuracy):
    return Curve(strategy=strategy, seed=seed, accuracy=accuracy, ferplus=accuracy, revealed=(1,) * 8)


def test_gains_are_paired_by_seed():
    settings = ExperimentSettings(start_labels=1, round_labels=10, rounds=2, seeds=(1, 2))
    random = [_curve("random", 1, (0.3, 0.4, 0.5)), _curve("random", 2, (0.4, 0.5, 0.6))]
    own = [_curve("active", 2, (0.4, 0.52, 0.63)), _curve("active", 1, (0.3, 0.41, 0.52))]
    found = summarise(own, random, settings, 0.55)
    assert [point.labels for point in found.points] == [0, 10, 20]
    assert found.points[0].gain is None
    assert found.points[2].gain.mean == pytest.approx(0.025)
    # One degree of freedom: 12.706 times the deviation over the root of two.
    assert found.points[2].gain.high == pytest.approx(0.025 + 12.7062 * 0.005, abs=1e-4)
    assert found.mean_gain.mean == pytest.approx((0.025 + 0.015) / 2)
    assert found.labels_to_target == (pytest.approx(10 + 10 * 3 / 11), None)
    assert summarise(random, random, settings, 0.55).mean_gain is None


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="seeds: expected two or more, for intervals"):
        ExperimentSettings(seeds=(1,))
    with pytest.raises(ValueError, match="strategies: expected random among them"):
        ExperimentSettings(strategies=("active",))


def test_the_verb_reads_leaves_copies_out_plays_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (76, 8, 8), dtype=np.uint8)
    images = np.stack([cv2.resize(face, (48, 48), interpolation=cv2.INTER_CUBIC) for face in faces])
    labels = [row % 7 for row in range(76)]
    usages = ["Training"] * 56 + ["PublicTest"] * 20
    votes = [[0, 9, 1, 0, 0, 0, 0, 0, 0, 0]] * 76
    made_up.write_fer2013(tmp_path / "fer2013", images, labels, usages, votes=votes)
    names = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    for number in range(28):
        face = cv2.resize(rng.integers(0, 256, (8, 8), dtype=np.uint8), (112, 112), interpolation=cv2.INTER_CUBIC)
        path = tmp_path / "web" / names[number % 7] / f"{names[number % 7]}_man_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), face)
    for number in (900, 901):  # a face of PublicTest, twice
        cv2.imwrite(str(tmp_path / "web" / "happy" / f"happy_man_{number}.png"), images[60])
    arguments = [
        "experiment", "--data", f"fer2013={tmp_path / 'fer2013'}", "--web", f"expw_crops={tmp_path / 'web'}",
        "--out", str(tmp_path / "out"), "--start-labels", "14", "--faces", "7", "--rounds", "2", "--seeds", "2",
        "--result", str(tmp_path / "result.json"), "--plot", str(tmp_path / "plot.png"),
    ]  # fmt: skip
    done = CliRunner().invoke(active, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["kind"], result["features"], result["web"]) == ("active-learning", "hog", ["expw_crops"])
    assert (result["web_faces"], result["web_dropped"]) == (28, {"in_public_test": 2, "similar": 0})
    assert len(result["curves"]) == 6
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "fer2013" / "fer2013.csv").unlink()  # what was read is kept
    assert CliRunner().invoke(active, arguments).exit_code == 0
    again = json.loads((tmp_path / "result.json").read_text())
    assert again["strategies"] == result["strategies"]
    sampled = CliRunner().invoke(active, [*arguments, "--sample", "20"])
    assert sampled.exit_code == 0, sampled.output
    assert json.loads((tmp_path / "result.json").read_text())["web_faces"] == 20
