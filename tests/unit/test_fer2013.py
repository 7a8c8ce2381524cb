import csv

import numpy as np
import pytest

from ferserve.faces.labels import Expression
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import ferplus_majority, read_fer2013
from ferserve.training.data.sources import parse_source
from ferserve.training.data.splits import cut_training, duplicates_of


def _write(folder, rows, votes=None):
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        writer.writerows(rows)
    if votes is not None:
        with (folder / "fer2013new.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Usage", "Image name", *"abcdefghij"])
            writer.writerows([row[2], f"fer{n}.png", *v] for n, (row, v) in enumerate(zip(rows, votes, strict=True)))


def _pixels(value):
    return " ".join([str(value)] * 2304)


def test_reads_splits_labels_and_votes(tmp_path):
    rows = [(3, _pixels(1), "Training"), (6, _pixels(2), "PublicTest"), (0, _pixels(255), "Training")]
    votes = [[1, 8, 0, 0, 0, 0, 0, 1, 0, 0], [10, *[0] * 9], [0, 0, 0, 0, 7, 2, 1, 0, 0, 0]]
    _write(tmp_path, rows, votes)
    splits = read_fer2013(tmp_path)
    assert set(splits) == {"train", "public"}
    train = splits["train"]
    assert train.labels.tolist() == [3, 0]
    assert train.images.shape == (2, 48, 48)
    assert train.images[1].min() == 255
    assert train.votes[0, Expression.HAPPY] == 8
    assert train.votes[0, Expression.NEUTRAL] == 1
    assert train.votes[1, Expression.ANGRY] == 7
    assert train.votes[1, Expression.DISGUST] == 2
    assert train.votes[1, Expression.FEAR] == 1


def test_votes_are_optional(tmp_path):
    _write(tmp_path, [(3, _pixels(1), "Training")])
    assert read_fer2013(tmp_path)["train"].votes.sum() == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, _pixels(1), "Training"), r"line 2: expected an emotion 0 to 6, got '7'"),
        (("happy", _pixels(1), "Training"), "expected an emotion 0 to 6, got 'happy'"),
        ((1, "1 2 3", "Training"), "expected 2304 pixels of 0 to 255, got 3"),
        ((1, _pixels(256), "Training"), "expected 2304 pixels of 0 to 255"),
        ((1, _pixels("x"), "Training"), "pixels are not all integers"),
        ((1, _pixels(1), "Test"), "expected a Usage of Training, PublicTest, PrivateTest, got 'Test'"),
        ((1, _pixels(1)), "expected 3 fields, got 2"),
    ],
)
def test_bad_rows_name_the_line(tmp_path, row, message):
    _write(tmp_path, [row])
    with pytest.raises(DataError, match=message):
        read_fer2013(tmp_path)


def test_missing_wrong_and_empty_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"expected FER-2013's fer2013\.csv"):
        read_fer2013(tmp_path)
    (tmp_path / "fer2013.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="expected the header"):
        read_fer2013(tmp_path)
    _write(tmp_path, [])
    with pytest.raises(DataError, match="at least one row"):
        read_fer2013(tmp_path)


def test_votes_of_another_length_are_refused(tmp_path):
    _write(tmp_path, [(1, _pixels(1), "Training")], [[1] * 10])
    with (tmp_path / "fer2013new.csv").open("a") as file:
        file.write("Training,x," + ",".join("1" * 10) + "\n")
    with pytest.raises(DataError, match="expected 1 rows, one for each"):
        read_fer2013(tmp_path)


def test_majority_drops_ties_other_classes_and_silence():
    votes = np.array(
        [
            [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],  # happy
            [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # tie
            [1, 0, 0, 0, 0, 0, 0, 9, 0, 0],  # contempt
            [0, 0, 0, 0, 0, 1, 9, 0, 0, 0],  # fear
            [0] * 10,
        ]
    )
    majority = ferplus_majority(votes)
    assert majority.rows.tolist() == [True, False, False, True, False]
    assert majority.labels.tolist() == [Expression.HAPPY, Expression.FEAR]
    assert majority.dropped == {"no_votes": 1, "tie": 1, "other_class": 1}


def _noise_rows(count, seed, usage, label=None):
    rng = np.random.default_rng(seed)
    return [
        (int(rng.integers(7)) if label is None else label, " ".join(map(str, rng.integers(0, 256, 2304))), usage)
        for _ in range(count)
    ]


def test_no_test_picture_and_no_half_of_a_pair_gets_into_the_fit(tmp_path):
    train = _noise_rows(60, 0, "Training", label=1)
    public = _noise_rows(5, 1, "PublicTest")
    leaked = [(1, public[0][1], "Training"), (1, public[1][1], "Training")]
    twins = [train[0], train[1], train[2]]
    rows = train + twins + leaked + public
    votes = [[9, *[0] * 9] for _ in rows]
    votes[10] = [1, *[0] * 8, 9]
    _write(tmp_path, rows, votes)
    splits = read_fer2013(tmp_path)
    split = cut_training(splits["train"], [splits["public"]], validation_share=0.25, seed=3)
    assert split.dropped == {"duplicate_of_test": 2, "not_a_face": 1}
    assert len(split.fit) + len(split.validation) == 62
    assert 14 <= len(split.validation) <= 16
    assert not duplicates_of(split.fit.images, split.validation.images).any()
    assert not duplicates_of(split.fit.images, splits["public"].images).any()
    again = cut_training(splits["train"], [splits["public"]], validation_share=0.25, seed=3)
    assert np.array_equal(again.validation.images, split.validation.images)


def test_source_text_is_checked():
    name, folder = parse_source("fer2013=some/where")
    assert (name, str(folder)) == ("fer2013", "some/where")
    for text in ("fer2013", "fer2013=", "celeba=x", "=x"):
        with pytest.raises(DataError, match="expected NAME=DIR with a NAME of fer2013"):
            parse_source(text)
