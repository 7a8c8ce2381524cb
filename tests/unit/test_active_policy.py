"""Equations 7 to 12 of S2 against numbers computed by hand."""

import math

import numpy as np
import pytest

from ferserve.training.active.patches import nine_patches
from ferserve.training.active.selection import SelectionSettings, draw, sampling_probabilities, select
from ferserve.training.active.worthiness import (
    WorthSettings,
    diversity,
    entropy,
    measure_worth,
    top_patches,
)

LOG2 = math.log(2)


def test_entropy_is_the_mean_over_patches():
    # One patch torn between two of three classes (log 2), one that is sure (0).
    patches = np.asarray([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    assert entropy(patches)[0] == pytest.approx(LOG2 / 2, abs=1e-4)
    # Even over four classes: log 4 whatever the number of patches.
    assert entropy(np.full((1, 5, 4), 0.25))[0] == pytest.approx(math.log(4))


def test_diversity_by_hand():
    # (0.8 - 0.4) log(0.8/0.4) + (0.2 - 0.6) log(0.2/0.6) = 0.4 log 2 + 0.4 log 3 = 0.4 log 6.
    patches = np.asarray([[[0.8, 0.2], [0.4, 0.6]]])
    assert diversity(patches)[0] == pytest.approx(0.4 * math.log(6))
    # A third patch like the first adds that pair once more, and nothing between the two that are alike.
    assert diversity(np.asarray([[[0.8, 0.2], [0.4, 0.6], [0.8, 0.2]]]))[0] == pytest.approx(0.8 * math.log(6))
    assert diversity(np.full((1, 9, 7), 1 / 7))[0] == pytest.approx(0, abs=1e-12)


def test_diversity_is_the_papers_double_sum():
    patches = np.random.default_rng(0).dirichlet(np.ones(7), size=(3, 5))
    for own, found in zip(patches, diversity(patches), strict=True):
        printed = sum(
            (own[j, k] - own[i, k]) * math.log(own[j, k] / own[i, k])
            for k in range(7) for j in range(5) for i in range(j, 5)
        )  # fmt: skip
        assert found == pytest.approx(printed)


def test_a_patch_that_rules_a_class_out_is_finite():
    # Clipped at 1e-6: twice (1 - 1e-6) log(1 / 1e-6).
    sure_of_others = np.asarray([[[1.0, 0.0], [0.0, 1.0]]])
    assert diversity(sure_of_others)[0] == pytest.approx(2 * (1 - 1e-6) * 6 * math.log(10))
    assert np.isfinite(entropy(sure_of_others)).all()


def test_only_the_patches_that_are_surest_of_the_dominant_class_count():
    # Class 1 has the highest mean (0.55), though two patches of four prefer class 0.
    patches = np.asarray([[[0.6, 0.4], [0.0, 1.0], [0.55, 0.45], [0.65, 0.35]]])
    worth = measure_worth(patches, WorthSettings(alpha=0.5))
    assert worth.dominant.tolist() == [1]
    kept = top_patches(patches, worth.dominant, 0.5)
    assert kept[0].tolist() == [[0.0, 1.0], [0.55, 0.45]]
    # A quarter of nine is rounded up to three; never none.
    nine = np.random.default_rng(1).dirichlet(np.ones(7), size=(2, 9))
    assert top_patches(nine, np.zeros(2, np.int64), 0.25).shape == (2, 3, 7)
    assert top_patches(nine, np.zeros(2, np.int64), 0.01).shape == (2, 1, 7)


def test_worth_is_the_weighted_sum():
    patches = np.asarray([[[0.8, 0.2], [0.4, 0.6]]])
    worth = measure_worth(patches, WorthSettings(alpha=1.0))
    h = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2) + 0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / 2
    assert worth.entropy[0] == pytest.approx(h)
    assert worth.worth[0] == pytest.approx(1.0 * h + 0.5 * 0.4 * math.log(6))
    entropy_alone = measure_worth(patches, WorthSettings(alpha=1.0, diversity_weight=0.0))
    assert entropy_alone.worth[0] == pytest.approx(h)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha: expected more than 0, at most 1, got 0.0"),
        ({"diversity_weight": -1.0}, "diversity_weight: expected 0 or more, got -1.0"),
    ],
)
def test_weights_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        WorthSettings(**settings)


def test_sampling_probabilities_by_hand():
    # Eq. 11: (5-1)/4, (3-1)/4, 0 -> 1, 0.5, 0; eq. 12: over 1.5.
    assert sampling_probabilities(np.asarray([5.0, 3.0, 1.0])) == pytest.approx([2 / 3, 1 / 3, 0])
    assert sampling_probabilities(np.full(4, 2.0)) == pytest.approx([0.25] * 4)


def test_a_draw_prefers_the_worthier_and_repeats_none():
    probability = sampling_probabilities(np.asarray([5.0, 3.0, 1.0]))
    rng = np.random.default_rng(0)
    first = [int(draw(probability, 1, rng)[0]) for _ in range(3000)]
    assert first.count(0) / 3000 == pytest.approx(2 / 3, abs=0.03)
    assert first.count(2) == 0
    # All three asked for: the impossible one comes last.
    assert sorted(draw(probability, 3, rng).tolist()) == [0, 1, 2]
    assert draw(probability, 3, rng).tolist()[2] == 2


def _choose(strategy, faces, worth, *, seed=0, extension=5.0):
    settings = SelectionSettings(faces=faces, strategy=strategy, extension=extension)
    worth = np.asarray(worth)
    return select(settings, worth=worth, whole_entropy=-worth, rng=np.random.default_rng(seed)).tolist()


def test_strategies():
    worth = list(range(100))
    chosen = _choose("active", 4, worth)
    assert len(set(chosen)) == 4
    assert all(row >= 80 for row in chosen)  # among the 5 * 4 worthiest
    assert chosen == _choose("active", 4, worth)
    assert chosen != _choose("active", 4, worth, seed=1)
    assert set(_choose("active", 4, worth, extension=1.0)) == {96, 97, 98, 99}
    assert _choose("entropy", 3, worth) == [0, 1, 2]  # this entropy is the worth's opposite
    assert any(row < 80 for row in _choose("random", 20, worth))
    assert sorted(_choose("active", 500, [3.0, 1.0, 2.0])) == [0, 1, 2]


def test_a_selection_out_of_range_is_named():
    with pytest.raises(ValueError, match="faces: expected more than 0, got 0"):
        SelectionSettings(faces=0)
    with pytest.raises(ValueError, match=r"extension: expected 1 or more, got 0\.5"):
        SelectionSettings(faces=1, extension=0.5)
    with pytest.raises(ValueError, match="strategy: expected one of active, entropy, random, got 'best'"):
        SelectionSettings(faces=1, strategy="best")


def test_nine_patches_are_windows_of_the_crop():
    crop = np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16, 1)
    patches = nine_patches(crop, share=1.0)
    assert patches.shape == (1, 9, 16, 16, 1)
    assert (patches == crop[:, None]).all()
    corners = np.zeros((1, 16, 16, 3), np.uint8)
    corners[0, :4, :4] = 200  # whole in the first patch, absent from those that begin behind it
    means = nine_patches(corners, share=0.75)[0].mean(axis=(1, 2, 3))
    assert means[0] == means.max()
    assert means[[2, 5, 6, 7, 8]].max() == 0
