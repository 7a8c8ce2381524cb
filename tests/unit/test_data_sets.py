import shutil

import numpy as np
import pytest
from tests.made_up import data_sets as made_up

from ferserve.faces.labels import Expression
from ferserve.training.data.catalog import DATA_SETS, parse_set, recognise
from ferserve.training.data.celeba import EXPRESSIVE
from ferserve.training.data.ck_frames import CONFIGURATIONS, configure, find_configuration
from ferserve.training.data.errors import DataError
from ferserve.training.data.lfw import read_lfw_pairs
from ferserve.training.data.sets import CLASSES, CONTEMPT


def _read(name, folder):
    return DATA_SETS[name].read(folder)


def test_every_set_describes_itself():
    for name, data_set in DATA_SETS.items():
        about = data_set.description
        assert about.name == name
        assert about.source
        assert about.terms
        assert about.layout
        assert about.subjects
        assert about.kind == "identity" or about.classes
    assert not DATA_SETS["ck48"].description.may_ship
    assert not DATA_SETS["ck_plus"].description.may_ship
    assert not DATA_SETS["jaffe"].description.may_ship


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_missing_and_an_empty_folder_say_what_to_do(name, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"expected .+, found|expected FER-2013's fer2013\.csv"):
            _read(name, folder)


def test_a_folder_a_class_with_and_without_splits(tmp_path):
    made_up.write_class_folders(tmp_path / "plain", ["happy", "anger", "contempt"])
    plain = _read("folders", tmp_path / "plain")
    assert plain.counts() == {"happy": 2, "angry": 2, "contempt": 2}
    assert plain.subjects is None
    assert set(plain.splits) == {"all"}
    assert plain.names[0] == "anger/angry_manager_11.jpg"
    assert plain.read(0).shape == (24, 24, 3)
    for part in ("train", "test"):
        made_up.write_class_folders(tmp_path / "split" / part, ["sadness"])
    split = _read("folders", tmp_path / "split")
    assert split.part("test").names == ("test/sadness/angry_manager_1.jpg", "test/sadness/angry_manager_2.jpg")
    with pytest.raises(DataError, match="expected pictures of split private, found splits test, train"):
        split.part("private")


def test_an_unknown_class_is_named(tmp_path):
    made_up.write_class_folders(tmp_path, ["happy", "bored"])
    for name in ("folders", "expw_crops", "muxspace"):
        with pytest.raises(DataError, match=r"bored: expected a class of angry, .*, contempt, got 'bored'; rename"):
            _read(name, tmp_path)


@pytest.mark.parametrize("suffix", ["tiff", "png", "jpg"])
def test_a_truncated_picture_is_named(tmp_path, suffix):
    path = tmp_path / "happy" / f"x.{suffix}"
    made_up.write_picture(path, seed=1, side_px=64)
    pictures = _read("folders", tmp_path)
    assert pictures.read(0).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(
        DataError, match=rf"x\.{suffix}: expected a picture that can be decoded; .*truncated.*; copy it"
    ):
        pictures.read(0)
    path.unlink()
    with pytest.raises(DataError, match="expected a picture that can be read: No such file"):
        pictures.read(0)


def test_jaffe_tells_people_and_expressions(tmp_path):
    made_up.write_jaffe(tmp_path)
    pictures = _read("jaffe", tmp_path)
    assert len(pictures) == 21
    assert set(pictures.subjects) == {"KA", "KL", "YM"}
    assert pictures.counts() == dict.fromkeys((name for name in CLASSES if name != "contempt"), 3)
    row = pictures.names.index("KA.NE1.5.tiff")
    assert pictures.labels[row] == Expression.NEUTRAL
    made_up.write_picture(tmp_path / "KA.XX1.9.tiff", seed=0)
    with pytest.raises(
        DataError, match=r"expected a name as KA\.AN1\.39\.tiff with an expression of AN, .* move it out"
    ):
        _read("jaffe", tmp_path)


def test_ck48_tells_people(tmp_path):
    made_up.write_ck48(tmp_path)
    pictures = _read("ck48", tmp_path)
    assert len(pictures) == 18
    assert set(pictures.subjects) == {"S005", "S010", "S011", "S138", "S504"}
    made_up.write_picture(tmp_path / "happy" / "me.png", seed=0)
    with pytest.raises(DataError, match=r"me\.png: expected a name as S005_001_00000011\.png, got 'me\.png'"):
        _read("ck48", tmp_path)


def test_ck48_has_the_four_configurations_without_neutral(tmp_path):
    made_up.write_ck48(tmp_path)
    pictures = _read("ck48", tmp_path)
    sizes = {
        name: len(configure(pictures, configuration))
        for name, configuration in CONFIGURATIONS.items()
        if not configuration.needs_neutral
    }
    assert sizes == {"6-S-NC": 5, "7-S-N": 6, "6-L-NC": 15, "7-L-N": 18}
    last = configure(pictures, find_configuration("6-S-NC"))
    assert all(name.endswith("_00000011.png") for name in last.names)
    assert last.dropped == {"other_class": 3, "earlier_frame": 10}
    assert pictures.dropped == {}
    for name in ("7-S-C", "8-S", "7-L-C", "8-L"):
        with pytest.raises(DataError, match=rf"{name}: expected neutral frames.*6-S-NC, 7-S-N, 6-L-NC, 7-L-N"):
            configure(pictures, find_configuration(name))
    with pytest.raises(DataError, match=r"expected a configuration of 6-S-NC, .*, got '5'"):
        find_configuration("5")


def test_full_ck_takes_onset_and_peak_frames_of_labelled_sequences(tmp_path):
    made_up.write_ck_plus(tmp_path)
    pictures = _read("ck_plus", tmp_path)
    assert len(pictures) == 12
    assert pictures.counts() == {"disgust": 3, "surprise": 3, "neutral": 3, "contempt": 3}
    assert set(pictures.subjects) == {"S005", "S010", "S138"}
    onset = [name for name, label in zip(pictures.names, pictures.labels, strict=True) if label == Expression.NEUTRAL]
    assert [name.rpartition("_")[2] for name in onset] == ["00000001.png"] * 3
    sizes = {name: len(configure(pictures, each)) for name, each in CONFIGURATIONS.items()}
    assert sizes == {
        "6-S-NC": 2, "7-S-N": 3, "7-S-C": 5, "8-S": 6, "6-L-NC": 6, "7-L-N": 9, "7-L-C": 9, "8-L": 12,
    }  # fmt: skip
    eight = configure(pictures, find_configuration("8-S"))
    assert CONTEMPT in eight.labels
    assert sum("_00000006" in name for name in eight.names) == 3


def test_full_ck_says_what_is_wrong(tmp_path):
    made_up.write_ck_plus(tmp_path)
    label = next((tmp_path / "Emotion" / "S005" / "001").iterdir())
    label.write_text("9.0\n")
    with pytest.raises(DataError, match=r"S005_001_00000006_emotion\.txt: expected a number 0 to 7, got '9\.0'"):
        _read("ck_plus", tmp_path)
    label.write_text("")
    with pytest.raises(DataError, match="expected a number 0 to 7, got ''"):
        _read("ck_plus", tmp_path)
    label.write_text("   3.0000000e+00\n")
    shutil.rmtree(tmp_path / "cohn-kanade-images" / "S010" / "002")
    with pytest.raises(DataError, match=r"002: expected more than 3 frames of the sequence.*found 0; unpack"):
        _read("ck_plus", tmp_path)
    shutil.rmtree(tmp_path / "Emotion")
    with pytest.raises(DataError, match=r"expected cohn-kanade-images/.*, found no Emotion; unpack CK\+"):
        _read("ck_plus", tmp_path)


def test_sfew_takes_stills_or_cut_faces_and_not_both(tmp_path):
    made_up.write_sfew(tmp_path / "stills")
    stills = _read("sfew", tmp_path / "stills")
    assert stills.counts() == {"angry": 2, "neutral": 2}
    assert sorted(set(stills.splits)) == ["train", "validation"]
    made_up.write_sfew(tmp_path / "faces", ("Train_Aligned_Faces", "Val_Aligned_Faces_new"))
    assert len(_read("sfew", tmp_path / "faces").part("validation")) == 2
    made_up.write_picture(tmp_path / "faces" / "Train" / "Angry" / "a.png", seed=0)
    with pytest.raises(DataError, match=r"expected whole stills \(Train\) or cut faces .*, found both"):
        _read("sfew", tmp_path / "faces")


def test_celeba_gives_twelve_attributes_parts_and_people(tmp_path):
    made_up.write_celeba(tmp_path)
    pictures = _read("celeba", tmp_path)
    assert pictures.labels.shape == (4, 12)
    assert pictures.classes == EXPRESSIVE
    assert pictures.labels[1].tolist() == [0, 1, 0, 0] * 3
    assert pictures.counts() == dict.fromkeys(EXPRESSIVE, 1)
    assert pictures.splits == ("train", "train", "validation", "test")
    assert pictures.subjects == ("2880", "2880", "7", "9")
    assert pictures.part("test").read(0).shape == (24, 24, 3)


def test_celeba_may_come_without_parts_and_people(tmp_path):
    made_up.write_celeba(tmp_path, whole=False)
    pictures = _read("celeba", tmp_path)
    assert set(pictures.splits) == {"all"}
    assert pictures.subjects is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], lines[1], lines[2].rpartition(" ")[0], *lines[3:]], "line 3: expected a file"),
        (lambda lines: [lines[0], lines[1], lines[2][:-2] + " 0", *lines[3:]], "line 3: expected .* values of -1 or 1"),
        (lambda lines: lines[:-1], r"expected as many rows as line 1 says \('4'\), got 3"),
        (lambda lines: [lines[0], lines[1].replace("Smiling", "Grins"), *lines[2:]], "line 2: expected .* Smiling"),
        (lambda lines: [*lines[:-1], lines[-1].replace("000004", "000009")], r"expected 000009\.jpg.*1 of 4 are"),
    ],
)  # fmt: skip
def test_celeba_says_which_line_is_wrong(tmp_path, change, message):
    made_up.write_celeba(tmp_path)
    path = tmp_path / "Anno" / "list_attr_celeba.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=message):
        _read("celeba", tmp_path)


def test_celebas_side_lists_must_be_whole(tmp_path):
    made_up.write_celeba(tmp_path)
    path = tmp_path / "Eval" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace("000001.jpg 0", "000001.jpg 7"))
    with pytest.raises(DataError, match="expected a part of 0, 1, 2, got '7'"):
        _read("celeba", tmp_path)
    path.write_text("000001.jpg 0\n")
    with pytest.raises(DataError, match=r"expected a line for 000002\.jpg, found none; 3 are missing"):
        _read("celeba", tmp_path)


def test_lfw_has_people_and_the_owners_pairs(tmp_path):
    made_up.write_lfw(tmp_path)
    pictures = _read("lfw", tmp_path)
    assert pictures.classes == ("Abel_Pacheco", "Jason_Kidd", "Zorica_Radovic")
    assert pictures.labels.tolist() == [0, 0, 0, 0, 1, 1, 2]
    pairs = read_lfw_pairs(tmp_path, pictures)
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert [pictures.names[row] for row in pairs.second] == [
        "Abel_Pacheco/Abel_Pacheco_0004.jpg", "Jason_Kidd/Jason_Kidd_0001.jpg",
        "Jason_Kidd/Jason_Kidd_0002.jpg", "Zorica_Radovic/Zorica_Radovic_0001.jpg",
    ]  # fmt: skip
    (tmp_path / "pairs.csv").write_text(
        "first,second,same,fold\nJason_Kidd/Jason_Kidd_0001.jpg,Jason_Kidd/Jason_Kidd_0002.jpg,1,7\n"
    )
    assert read_lfw_pairs(tmp_path, pictures).fold.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected the numbers of folds and of pairs, as `10 300`, got \[\]"),
        ("1\t1\nJason_Kidd\t1\t2\n", "expected 2 pairs, as line 1 says, got 1"),
        ("1\t1\nJason_Kidd\t1\t2\nJason_Kidd\tx\tAbel_Pacheco\t1\n", "line 3: expected `NAME 1 4` or `NAME 1 OTHER 2`"),
        ("1\t1\nJason_Kidd\t1\t9\nJason_Kidd\t1\tAbel_Pacheco\t1\n", r"line 2: expected a picture Jason_Kidd/"),
    ],
)  # fmt: skip
def test_lfws_pairs_say_which_line_is_wrong(tmp_path, text, message):
    made_up.write_lfw(tmp_path)
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_lfw_pairs(tmp_path, _read("lfw", tmp_path))


def test_lfw_without_pairs_and_with_a_bad_csv(tmp_path):
    made_up.write_lfw(tmp_path)
    pictures = _read("lfw", tmp_path)
    (tmp_path / "pairs.txt").unlink()
    with pytest.raises(DataError, match=r"expected pairs\.txt or pairs\.csv"):
        read_lfw_pairs(tmp_path, pictures)
    (tmp_path / "pairs.csv").write_text("first,second,same,fold\na,b,1\n")
    with pytest.raises(DataError, match="line 2: expected first,second,same,fold, got 'a,b,1'"):
        read_lfw_pairs(tmp_path, pictures)


def test_identity_folders_with_and_without_splits(tmp_path):
    made_up.write_people(tmp_path / "casia", {"0000045": 2, "0000099": 1})
    casia = _read("casia_webface", tmp_path / "casia")
    assert casia.counts() == {"0000045": 2, "0000099": 1}
    assert casia.subjects == ("0000045", "0000045", "0000099")
    made_up.write_people(tmp_path / "vgg" / "train", {"n000002": 2}, "{:04d}_01.jpg")
    made_up.write_people(tmp_path / "vgg" / "test", {"n000001": 1}, "{:04d}_01.jpg")
    vgg = _read("vgg_face", tmp_path / "vgg")
    assert vgg.classes == ("n000001", "n000002")
    assert vgg.part("train").labels.tolist() == [1, 1]
    (tmp_path / "casia" / "0000100").mkdir()
    with pytest.raises(DataError, match="0000100: expected pictures of a person, found none"):
        _read("casia_webface", tmp_path / "casia")


@pytest.mark.parametrize("boxes", [True, False])
def test_ferplus_folders_are_read_by_majority(tmp_path, boxes):
    made_up.write_ferplus(tmp_path, boxes=boxes)
    pictures = _read("ferplus", tmp_path)
    assert pictures.part("train").labels.tolist() == [Expression.HAPPY, CONTEMPT, Expression.FEAR]
    assert pictures.part("public").names == ("FER2013Valid/fer0000000.png",)
    assert pictures.dropped == {"no_votes": 1, "tie": 1, "unknown_or_not_a_face": 1}
    assert pictures.read(0).shape == (48, 48, 3)


def test_ferplus_folders_say_which_line_is_wrong(tmp_path):
    made_up.write_ferplus(tmp_path)
    path = tmp_path / "FER2013Train" / "label.csv"
    whole = path.read_text()
    path.write_text(whole + 'fer0000009.png,"(0, 0, 48, 48)",4,0\n')
    with pytest.raises(DataError, match=r"label\.csv, line 7: expected a file's name, a box or none, and 10 counts"):
        _read("ferplus", tmp_path)
    path.write_text(whole.replace("fer0000002", "fer0000077"))
    with pytest.raises(DataError, match=r"line 3: expected a picture 'fer0000077\.png'.*generate_training_data\.py"):
        _read("ferplus", tmp_path)


def test_the_csv_pair_is_fer2013_and_ferplus(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)
    usages = ["Training"] * 5 + ["PublicTest"]
    made_up.write_fer2013(tmp_path, images, [3, 6, 0, 2, 4, 5], usages, votes=list(made_up.VOTES))
    fer2013 = _read("fer2013", tmp_path)
    assert fer2013.labels.tolist() == [3, 6, 0, 2, 4, 5]
    assert fer2013.names[0] == "Training 0"
    assert fer2013.names[5] == "PublicTest 0"
    assert np.array_equal(fer2013.read(5)[:, :, 1], images[5])
    ferplus = _read("ferplus", tmp_path)
    assert ferplus.labels.tolist() == [Expression.HAPPY, CONTEMPT, Expression.FEAR]
    assert np.array_equal(ferplus.read(2)[:, :, 0], images[3])


def test_a_hash_follows_names_labels_and_pixels(tmp_path):
    made_up.write_jaffe(tmp_path)
    whole = _read("jaffe", tmp_path)
    before = whole.sha256()
    assert before == _read("jaffe", tmp_path).sha256()
    assert whole.take(np.arange(20)).sha256() != before
    made_up.write_picture(tmp_path / "KA.AN1.1.tiff", seed=99)
    assert _read("jaffe", tmp_path).sha256() != before


def test_sources_name_a_set_a_split_or_only_a_folder(tmp_path):
    made_up.write_jaffe(tmp_path / "a")
    made_up.write_ck48(tmp_path / "b")
    made_up.write_lfw(tmp_path / "c")
    made_up.write_people(tmp_path / "d", {"0000045": 1})
    made_up.write_celeba(tmp_path / "e")
    made_up.write_ck_plus(tmp_path / "f")
    made_up.write_class_folders(tmp_path / "g", ["happy"])
    made_up.write_ferplus(tmp_path / "h")
    made_up.write_sfew(tmp_path / "i")
    expected = ["jaffe", "ck48", "lfw", "casia_webface", "celeba", "ck_plus", "expw_crops", "ferplus", "sfew"]
    assert [recognise(path).description.name for path in sorted(tmp_path.iterdir())] == expected
    source = parse_set(f"celeba.test={tmp_path / 'e'}", option="--data")
    assert (source.title, len(source.read())) == ("celeba.test", 1)
    assert parse_set(str(tmp_path / "a"), option="--data").title == "jaffe"
    with pytest.raises(
        DataError, match=r"--data: expected NAME=DIR or NAME\.SPLIT=DIR with a NAME of fer2013, ferplus"
    ):
        parse_set("imagenet=x", option="--data")
    with pytest.raises(
        DataError, match="celeba: expected pictures of split public, found splits test, train, validation"
    ):
        parse_set(f"celeba.public={tmp_path / 'e'}", option="--data").read()
    with pytest.raises(DataError, match="recognised none; `ferserve data describe` shows the layouts"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="expected a folder with a data set, none at"):
        recognise(tmp_path / "nowhere")
