import numpy as np
import pytest

from ferserve.training.calibrate import MIN_COVERAGE, Scaling, fit_scaling, identity_scaling, uncertainty_threshold
from ferserve.training.evaluate import (
    brier_score,
    confusion_matrix,
    expected_calibration_error,
    make_report,
    wilson,
)


def test_wilson_by_hand():
    # Wilson 1927: 8 of 10 at 95 % is 0.490 to 0.943.
    interval = wilson(8, 10)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.4902, abs=1e-4)
    assert interval.high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 10).low == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="more than 0, got 0"):
        wilson(0, 0)


def test_calibration_error_by_hand():
    # Two bins: top scores 0.95 (right, wrong) and 0.55 (right, right).
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.55, 0.45]])
    labels = np.array([0, 1, 0, 0])
    expected = 0.5 * abs(0.5 - 0.95) + 0.5 * abs(1.0 - 0.55)
    assert expected_calibration_error(scores, labels) == pytest.approx(expected)


def test_a_score_of_one_falls_into_the_last_bin():
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_brier_by_hand():
    assert brier_score(np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0])) == pytest.approx((0.08 + 0.72) / 2)


def test_confusion_rows_are_the_truth():
    matrix = confusion_matrix(np.array([1, 1, 2]), np.array([0, 1, 2]), 3)
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_scaling_undoes_a_known_scale_and_shift():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(8000, 7)) * 2
    cumulated = identity_scaling(7).scores(truth).cumsum(axis=1)
    labels = (rng.random((8000, 1)) > cumulated).sum(axis=1).clip(max=6)
    shift = np.array([0.9, 0, 0, 0, 0, -0.9, 0])
    scaling = fit_scaling(3.0 * (truth + shift), labels)
    assert scaling.temperature == pytest.approx(3.0, rel=0.08)
    assert np.array(scaling.bias) - np.mean(scaling.bias) == pytest.approx(-shift, abs=0.2)
    assert scaling.scores(truth).sum(axis=1) == pytest.approx(np.ones(8000))


def test_scaling_by_hand():
    scores = Scaling(temperature=2.0, bias=(0.0, np.log(3.0))).scores(np.array([[2.0, 2.0]]))
    assert scores[0] == pytest.approx([0.25, 0.75])


def test_threshold_reaches_the_target_where_it_can():
    # 60 faces at 0.9, all right; 40 at 0.5, half of them right: 0.8 needs 33 of the latter at most.
    top = np.array([0.9] * 60 + [0.5] * 40)
    labels = np.array([0] * 60 + [0, 1] * 20)
    scores = np.stack([top, 1 - top], axis=1) + np.array([1e-9, 0.0])
    assert uncertainty_threshold(scores, labels) == 0.0
    worse = np.array([0] * 60 + [1] * 40)
    assert uncertainty_threshold(scores, worse) == pytest.approx(0.5)
    hopeless = np.array([1] * 100)
    threshold = uncertainty_threshold(scores, hopeless)
    assert (scores.max(axis=1) >= threshold).mean() >= MIN_COVERAGE


def test_report_counts_what_it_says():
    scores = np.full((4, 7), 0.05)
    scores[[0, 1, 2, 3], [3, 3, 0, 6]] = 0.7
    report = make_report(scores, np.array([3, 0, 0, 5]), uncertain_below=0.5)
    assert report.faces == 4
    assert report.accuracy.value == 0.5
    assert report.per_class["angry"].value == 0.5
    assert report.per_class["happy"].value == 1.0
    assert set(report.per_class) == {"angry", "happy", "surprise"}
    assert report.confusion[0][3] == 1
    assert report.certain_share == 1.0
    assert make_report(scores, np.array([3, 0, 0, 5]), uncertain_below=0.9).certain_share == 0.0
    with pytest.raises(ValueError, match="at least one"):
        make_report(np.zeros((0, 7)), np.zeros(0, np.int64))
