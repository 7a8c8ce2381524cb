import numpy as np
import pytest
from tests.made_up import data_sets as made_up

from ferserve.training.data.catalog import DATA_SETS
from ferserve.training.data.errors import DataError
from ferserve.training.data.folds import cut_folds, cut_parts
from ferserve.training.data.sets import CLASSES, Pictures


def _pictures(people, labels):
    count = len(labels)
    return Pictures(
        names=tuple(map(str, range(count))),
        origins=(np.zeros((2, 2), np.uint8),) * count,
        labels=np.asarray(labels, np.int64),
        classes=CLASSES,
        subjects=people,
        splits=("all",) * count,
    )


@pytest.fixture
def crowd():
    """Forty people with three frames of each of one to five of seven classes."""
    rng = np.random.default_rng(0)
    people, labels = [], []
    for person in range(40):
        for label in rng.choice(7, size=rng.integers(1, 6), replace=False):
            people += [f"S{person:03d}"] * 3
            labels += [int(label)] * 3
    return _pictures(tuple(people), labels)


def _sides(pictures, folds, fold):
    people = np.asarray(pictures.subjects)
    return set(people[folds == fold]), set(people[folds != fold])


def test_no_person_is_on_both_sides_and_groups_are_alike(crowd):
    folds = cut_folds(crowd, seed=1)
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    for fold in range(5):
        inside, outside = _sides(crowd, folds, fold)
        assert not inside & outside
        assert len(crowd) / 5 * 0.8 < (folds == fold).sum() < len(crowd) / 5 * 1.2
        for label in range(7):
            mine, all_of_it = ((crowd.labels == label) & (folds == fold)).sum(), (crowd.labels == label).sum()
            assert abs(mine - all_of_it / 5) <= 6  # two people's frames


def test_the_papers_groups_put_frames_of_one_person_on_both_sides(crowd):
    folds = cut_folds(crowd, "frames", seed=1)
    counts = np.bincount(folds)
    assert counts.max() - counts.min() <= 1
    inside, outside = _sides(crowd, folds, 0)
    assert len(inside & outside) > 20


def test_each_person_in_turn(crowd):
    folds = cut_folds(crowd, "leave-one-out", seed=1)
    assert len(set(folds)) == 40
    assert all(len(_sides(crowd, folds, fold)[0]) == 1 for fold in range(40))


@pytest.mark.parametrize("protocol", ["subjects", "frames"])
def test_a_seed_gives_one_cut_and_another_seed_another(crowd, protocol):
    assert np.array_equal(cut_folds(crowd, protocol, seed=1), cut_folds(crowd, protocol, seed=1))
    assert not np.array_equal(cut_folds(crowd, protocol, seed=1), cut_folds(crowd, protocol, seed=2))


def test_parts_as_lin_et_al_have_them():
    pictures = _pictures(tuple(f"S{row // 15:03d}" for row in range(1875)), np.arange(1875) % 8)
    fit, test, validation = cut_parts(pictures, (1400, 200, 275), "frames", seed=0)
    assert (len(fit), len(test), len(validation)) == (1400, 200, 275)
    assert len(np.unique(np.concatenate([fit, test, validation]))) == 1875
    parts = cut_parts(pictures, (1400, 200, 275), seed=0)
    assert sum(map(len, parts)) == 1875
    assert [len(part) for part in parts] == pytest.approx([1400, 200, 275], abs=15)
    people = [{pictures.subjects[row] for row in part} for part in parts]
    assert not people[0] & people[1]
    assert not people[0] & people[2]


def test_what_cannot_be_cut_is_explained(crowd, tmp_path):
    made_up.write_class_folders(tmp_path, ["happy", "sad"])
    nobody = DATA_SETS["folders"].read(tmp_path)
    with pytest.raises(DataError, match="expected a data set that tells people apart"):
        cut_folds(nobody, seed=0)
    assert len(cut_folds(nobody, "frames", seed=0, groups=2)) == 4
    with pytest.raises(DataError, match="expected at least 5 pictures to cut, got 4"):
        cut_folds(nobody, "frames", seed=0)
    with pytest.raises(DataError, match="expected at least 41 people to cut, got 40"):
        cut_folds(crowd, seed=0, groups=41)
    with pytest.raises(DataError, match="expected at least 1875 pictures to cut"):
        cut_parts(crowd, (1400, 200, 275), "frames", seed=0)
    with pytest.raises(ValueError, match="expected subjects or frames"):
        cut_parts(crowd, (1, 1), "leave-one-out", seed=0)
