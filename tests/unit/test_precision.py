import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.archive import read_archive
from ferserve.training.cli.precision import precision
from ferserve.training.data.errors import DataError
from ferserve.training.fidelity import compare, paired_difference
from ferserve.training.held_out import recipe_of
from ferserve.training.int8 import Candidate, choose
from ferserve.training.precision import Variant, _read_faces, measure_precision, recommend
from ferserve.training.quantize import Int8Settings
from ferserve.training.recipes.mobilenet import mobilenet
from ferserve.training.throughput import BATCHES, ROUND_FACES, Quartiles, Speed, measure_speeds


def right(total, hits):
    mask = np.zeros(total, np.bool_)
    mask[list(hits)] = True
    return mask


def scores_of(classes):
    """Scores whose top classes are these: 0.4 for the top, 0.1 for the six others."""
    return np.where(np.eye(7, dtype=bool)[classes], 0.4, 0.1).astype(np.float32)


def fidelity_of(*, faces=10_000, moved=0, lost=0):
    """Faces of class 0 that float32 names rightly: `lost` of `moved` answers become wrong, the others stay right."""
    labels = np.zeros(faces, np.int64)
    float_top, top = labels.copy(), labels.copy()
    top[:lost] = 1
    # Wrong before and after, but in another way: the top class moves and accuracy does not.
    float_top[lost:moved], top[lost:moved] = 2, 3
    return compare(scores_of(float_top), scores_of(top), labels)


def test_the_difference_counts_faces_that_one_of_the_two_gets_right():
    # Of 10 faces 6 are right in both, 1 in float alone, 2 in the other alone, 1 in neither.
    paired = paired_difference(right(10, range(7)), right(10, (0, 1, 2, 3, 4, 5, 8, 9)))
    assert (paired.only_float_right, paired.only_this_right) == (1, 2)
    assert paired.difference.value == pytest.approx(0.1)
    # Bonett & Price: p12 = 3/12, p21 = 2/12, so 1/12 -+ 1.96 sqrt((5/12 - 1/144) / 12).
    assert paired.difference.low == pytest.approx(1 / 12 - 1.959964 * (59 / 1728) ** 0.5, abs=1e-6)
    assert paired.difference.high == pytest.approx(1 / 12 + 1.959964 * (59 / 1728) ** 0.5, abs=1e-6)
    assert paired.p_value == 1.0


def test_mcnemars_p_is_the_binomials():
    # One against nine: 2 (C(10,0) + C(10,1)) / 2^10.
    paired = paired_difference(right(20, range(9)), right(20, (19,)))
    assert paired.p_value == pytest.approx(22 / 1024)


def test_equal_answers_differ_by_nothing_in_an_interval_that_is_not_a_point():
    paired = paired_difference(right(1000, range(700)), right(1000, range(700)))
    assert paired.difference.value == 0
    assert paired.difference.low == pytest.approx(-paired.difference.high)
    assert 0 < paired.difference.high < 0.005
    assert paired.p_value == 1.0


def test_fidelity_by_hand():
    labels = np.asarray([0, 1, 2, 3])
    float_scores, scores = scores_of([0, 1, 2, 4]), scores_of([0, 1, 5, 4])
    scores[0] = [0.34, 0.16, 0.1, 0.1, 0.1, 0.1, 0.1]
    fidelity = compare(float_scores, scores, labels)
    assert fidelity.faces == 4
    assert fidelity.accuracy.value == 0.5
    assert fidelity.paired.difference.value == -0.25
    assert fidelity.agreement.value == 0.75
    assert fidelity.largest_score_change == pytest.approx(0.3)
    assert fidelity.mean_score_change == pytest.approx((0.06 * 2 + 0.3 * 2) / 28)
    # Three bins of one colour each: 0.34 right, two of 0.4 wrong and one right fall into bins 5 and 6.
    assert fidelity.ece == pytest.approx(abs(1 - 0.34) / 4 + abs(1 / 3 - 0.4) * 3 / 4, abs=1e-6)


def test_the_rule_at_its_edges():
    assert fidelity_of(moved=299, lost=30).objections == ()
    assert fidelity_of(moved=31, lost=31).objections == ("loses 0.31 points of 0.3",)
    assert fidelity_of(moved=300, lost=0).objections == ("agrees on 97.00 %, not on more than 97 %",)
    assert len(fidelity_of(moved=400, lost=40).objections) == 2


def candidate(float_convs, **kept):
    settings = Int8Settings(method="minmax", float_convs=float_convs, reduce_range=False)
    return Candidate(settings=settings, fidelity=fidelity_of(**kept))


def test_the_cheapest_setting_within_the_rule_is_chosen():
    poor, cheap, better, dear = (
        candidate(0, moved=500),
        candidate(1, moved=200),
        candidate(1, moved=190),
        candidate(2, moved=1),
    )
    assert choose([poor, cheap, better, dear]) is better
    worse = candidate(3, moved=600)
    assert choose([worse, poor]) is poor


def variant(name, ratio, **kept):
    fidelity = fidelity_of(**kept)
    flat = Quartiles(low=1, median=1, high=1)
    speeds = [
        Speed(batch=1, clock="core", faces_per_s=flat, ratio=replace(flat, median=9)),
        Speed(batch=8, clock="core", faces_per_s=flat, ratio=replace(flat, median=ratio)),
        Speed(batch=8, clock="wall", faces_per_s=flat, ratio=replace(flat, median=9)),
    ]
    return Variant(
        name=name, settings=None, needs_vnni=False, size_bytes=1, deflated_bytes=1,
        fidelity=fidelity, speeds=tuple(speeds), objections=fidelity.objections,
    )  # fmt: skip


def test_the_fastest_without_objections_is_recommended():
    fp32, fast = variant("fp32", 1.0), variant("fast", 2.0, moved=100)
    assert recommend([fp32, fast]) is fast
    assert recommend([fp32, fast, variant("broken", 5.0, moved=400)]) is fast
    closer = variant("closer", 1.95, moved=50)
    assert recommend([fp32, fast, closer]) is closer
    assert recommend([fp32, variant("slow", 0.9)]) is fp32


class Clock:
    """Stands still but for what scorers add."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_graphs_take_turns_and_ratios_refer_to_the_first():
    clock, calls = Clock(), []
    crops = np.zeros((40, 2, 2, 1), np.uint8)

    def scorer(name, face_s):
        def score(batch):
            calls.append((name, len(batch)))
            clock.now_s += face_s * len(batch)

        return score

    speeds = measure_speeds(
        {"float": scorer("float", 0.5), "quick": scorer("quick", 0.125)}, crops, rounds=2, clocks={"core": clock}
    )
    assert [speed.batch for speed in speeds["quick"]] == list(BATCHES)
    for speed in speeds["quick"]:
        assert speed.faces_per_s == Quartiles(low=8, median=8, high=8)
        assert speed.ratio == Quartiles(low=4, median=4, high=4)
    assert {speed.ratio.median for speed in speeds["float"]} == {1.0}
    # At the last batch size: each once to warm up, then in turns, the second round led by the other.
    order = [name for name, count in calls if count == BATCHES[-1]][:: ROUND_FACES // BATCHES[-1]]
    assert order == ["float", "quick", "float", "quick", "quick", "float"]


def test_quartiles_over_the_rounds():
    # Seconds of a round's 32 faces: one to warm up, then five rounds that take longer each.
    clock, rounds_s = Clock(), iter([1.0, 1.0, 2.0, 4.0, 8.0, 16.0] * len(BATCHES))
    scored = 0

    def score(batch):
        nonlocal scored
        if scored % ROUND_FACES == 0:
            clock.now_s += next(rounds_s)
        scored += len(batch)

    crops = np.zeros((ROUND_FACES, 2, 2, 1), np.uint8)
    for speed in measure_speeds({"float": score}, crops, rounds=5, clocks={"core": clock})["float"]:
        assert speed.faces_per_s == Quartiles(low=4, median=8, high=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FER-2013's layout with 120 made-up faces of three classes, from dark to bright."""
    folder = tmp_path_factory.mktemp("fer2013")
    rng = np.random.default_rng(0)
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for number in range(120):
            label = number % 3
            pixels = " ".join(map(str, rng.integers(0, 60, 2304) + 90 * label))
            writer.writerow([label, pixels, "Training" if number < 80 else "PublicTest"])
    return f"fer2013={folder}"


CANDIDATES = (
    Int8Settings(method="minmax", float_convs=1, reduce_range=False),
    Int8Settings(method="minmax", float_convs=0, reduce_range=True),
)


def test_every_precision_of_an_archive_is_measured(conv_archive, data, tmp_path):
    said = []
    report = measure_precision(
        str(conv_archive), data, split="public", out=tmp_path, rounds=1, candidates=CANDIDATES, say=said.append
    )
    values = json.loads(json.dumps(report.to_dict()))
    assert values["archive_sha256"] == read_archive(conv_archive).sha256
    assert values["calibration_faces"] == 74  # 80 of Training less a tenth of each class
    assert [variant["name"] for variant in values["variants"]] == ["fp32", "fp16", "int8", "int8-reduced"]
    fp32, fp16, int8, reduced = values["variants"]
    assert [variant["fidelity"]["faces"] for variant in values["variants"]] == [40] * 4
    assert fp32["fidelity"]["agreement"]["value"] == 1
    assert fp32["fidelity"]["largest_score_change"] == 0
    assert fp16["size_bytes"] < fp32["size_bytes"] == len(read_archive(conv_archive).onnx())
    assert 0 < int8["fidelity"]["largest_score_change"] < 0.1
    assert (int8["settings"]["float_convs"], int8["needs_vnni"]) == (1, True)
    assert (reduced["settings"]["float_convs"], reduced["needs_vnni"]) == (0, False)
    assert {(speed["batch"], speed["clock"]) for speed in int8["speeds"]} == {
        (1, "core"), (8, "core"), (1, "wall"), (8, "wall"),
    }  # fmt: skip
    assert [row["settings"]["reduce_range"] for row in values["search"]] == [False, True]
    assert {row["fidelity"]["faces"] for row in values["search"]} == {6}
    assert len(said) == 2
    assert {path.stem: path.stat().st_size for path in tmp_path.glob("*.onnx")} == {
        variant["name"]: variant["size_bytes"] for variant in values["variants"]
    }


def test_the_validation_split_needs_no_test_rows_of_its_own(conv_archive, data):
    report = measure_precision(str(conv_archive), data, split="train-validation", rounds=1, candidates=CANDIDATES[:1])
    assert [variant.fidelity.faces for variant in report.variants] == [6, 6, 6]
    assert report.variants[2].fidelity == report.search[0].fidelity


def test_calibration_sees_neither_validation_nor_test_pictures(data):
    crops, validation, public = _read_faces(data, "public", mobilenet(), mobilenet().preprocess)
    known = {crop.tobytes() for crop in crops}
    assert len(known) == 74
    for faces in (validation, public):
        assert not known & {crop.tobytes() for crop in faces.crops}


def test_the_verb_prints_a_table_and_leaves_the_report(conv_archive, data, tmp_path):
    app = Typer()
    app.command()(precision)
    result = CliRunner().invoke(app, [str(conv_archive), "--data", data, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "precision.json").read_text())
    assert report["split"] == "train-validation"
    assert len(report["search"]) == 16
    assert f"recommended: {report['recommended']}" in result.stdout
    assert "conv on train-validation, 6 faces" in result.stdout
    assert "agreement" not in result.stdout
    assert result.stderr.count("agreement") == 16


def test_the_recipe_must_be_the_archives_own(conv_archive, tmp_path):
    archive = read_archive(conv_archive)
    path = tmp_path / "recipe.json"
    path.write_text(mobilenet().to_json())
    assert recipe_of(archive) == recipe_of(archive, [path]) == mobilenet()
    other = replace(mobilenet(), seed=2)
    path.write_text(other.to_json())
    by_other = replace(archive, manifest=replace(archive.manifest, recipe_sha256=other.sha256))
    assert recipe_of(by_other, [path]) == other
    by_none = replace(archive, manifest=replace(archive.manifest, recipe_sha256="0" * 64))
    with pytest.raises(DataError, match=r"not found in this version's recipes or .*recipe\.json; --recipe names"):
        recipe_of(by_none, [path])


def test_a_split_that_is_not_there_is_named(conv_archive, data, tmp_path):
    lines = (Path(data.partition("=")[2]) / "fer2013.csv").read_text().splitlines(keepends=True)
    (tmp_path / "fer2013.csv").write_text("".join(line for line in lines if "PublicTest" not in line))
    with pytest.raises(DataError, match="expected rows of split public, found splits train"):
        measure_precision(str(conv_archive), f"fer2013={tmp_path}", split="public")
