import json

import numpy as np
import onnx
import pytest
from tests.made_up import data_sets as made_up
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession
from ferserve.training.cli.evaluate import evaluate
from ferserve.training.features import read_features, with_features
from ferserve.training.intervals import over_people, over_seeds
from ferserve.training.probe import fit_probe


def test_features_are_what_the_last_layer_takes(tiny_archive):
    archive = open_archive(str(tiny_archive))
    crops = np.random.default_rng(0).integers(0, 256, (70, 24, 24, 1), dtype=np.uint8)
    features = read_features(archive, crops, threads=1)
    assert np.array_equal(features, crops.reshape(70, -1))  # the made-up graph is linear in its pixels
    weights = onnx.numpy_helper.to_array(onnx.load_from_string(archive.onnx()).graph.initializer[0])
    scores = ScoringSession.from_archive(archive).score(crops)
    assert np.array_equal((features @ weights).argmax(axis=1), scores.argmax(axis=1))


def test_a_graph_without_a_linear_layer_has_none(tiny_archive):
    model = onnx.load_from_string(open_archive(str(tiny_archive)).onnx())
    [layer] = [node for node in model.graph.node if node.op_type == "MatMul"]
    layer.op_type = "Identity"
    with pytest.raises(ArchiveError, match="expected a linear layer"):
        with_features(model.SerializeToString())


def test_a_probe_finds_what_is_linear_and_is_honest_of_noise():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 20)) * 5 + 3
    labels = (features[:, :3]).argmax(axis=1)
    probe = fit_probe(features[:300], labels[:300], 3)
    assert (probe.scores(features[300:]).argmax(axis=1) == labels[300:]).mean() > 0.9
    assert probe.scores(features).sum(axis=1) == pytest.approx(np.ones(400))
    drawn = rng.integers(0, 3, 400)
    nothing = fit_probe(features[:300], drawn[:300], 3)
    assert (nothing.scores(features[300:]).argmax(axis=1) == drawn[300:]).mean() < 0.5


def test_a_feature_that_stands_still_does_not_explode_on_others():
    features = np.random.default_rng(0).normal(size=(40, 3))
    features[:, 2] = 0.0
    probe = fit_probe(features, (features[:, 0] > 0).astype(np.int64), 2)
    moved = features.copy()
    moved[:, 2] = 5.0
    assert probe.scores(moved) == pytest.approx(probe.scores(features))


def test_people_are_resampled_and_not_faces():
    people = [f"S{number // 10}" for number in range(100)]
    by_person = np.repeat(np.arange(10) < 7, 10)  # ten faces of a person are right together or not at all
    spread = over_people(by_person, people)
    assert spread.value == 0.7
    assert (spread.low, spread.high) == pytest.approx((0.4, 1.0), abs=0.11)
    mixed = over_people(np.tile(np.arange(10) < 7, 10), people)
    assert (mixed.low, mixed.high) == (0.7, 0.7)
    assert over_people(by_person, people) == spread
    with pytest.raises(ValueError, match="got 100 and 1"):
        over_people(by_person, ["S1"])


def test_seeds_by_hand():
    # t with two degrees of freedom at 97.5 % is 4.3027; the deviation of 0.1, 0.2, 0.3 is 0.1.
    summary = over_seeds([0.1, 0.2, 0.3])
    assert summary.mean == pytest.approx(0.2)
    assert summary.high - summary.mean == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert (summary.runs, summary.deviation) == (3, pytest.approx(0.1))
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        over_seeds([0.5])


@pytest.mark.parametrize(
    ("protocol", "groups", "runs"), [("subjects", 5, 2), ("frames", 5, 2), ("leave-one-out", 5, 1)]
)
def test_the_verb_probes_by_groups(tiny_archive, tmp_path, protocol, groups, runs):
    made_up.write_ck48(tmp_path / "ck48")
    app = Typer()
    app.command()(evaluate)
    result, plots = tmp_path / "probe.json", tmp_path / "plots"
    flags = ["--data", f"ck48={tmp_path / 'ck48'}", "--configuration", "7-L-N", "--probe", protocol, "--seeds", "2"]
    flags += ["--result", str(result), "--plots", str(plots)]
    printed = CliRunner().invoke(app, [str(tiny_archive), *flags, "--json"])
    assert printed.exit_code == 0
    report = json.loads(printed.stdout)
    assert report == json.loads(result.read_text())
    assert (report["kind"], report["protocol"], report["groups"]) == ("probe", protocol, groups)
    assert report["classes"] == ["angry", "disgust", "fear", "happy", "surprise", "contempt"]
    assert [run["seed"] for run in report["runs"]] == list(range(1, runs + 1))
    assert all(run["report"]["faces"] == 18 for run in report["runs"])
    assert (report["over_seeds"] is None) == (runs == 1)
    assert next(plots.iterdir()).read_bytes().startswith(b"\x89PNG")
    assert CliRunner().invoke(app, [str(tiny_archive), *flags]).exit_code == 0
