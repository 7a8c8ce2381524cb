import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from ferserve.training.cli.ledger import ledger
from ferserve.training.data.errors import DataError
from ferserve.training.inside.regions import Region
from ferserve.training.ledger.claim import ByFolds, ByTime, InFrame, Occluded, OnSet, OnSplit, OverRandom
from ferserve.training.ledger.claims import CLAIMS, SYSTEMS
from ferserve.training.ledger.measured import find, read_results
from ferserve.training.ledger.page import render

DOCS = Path(__file__).parents[2] / "docs"


def _share(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread}


def _report(accuracy, faces=100):
    recalls = {"angry": _share(0.5), "happy": _share(0.7)}
    return {"faces": faces, "accuracy": _share(accuracy), "ece": 0.025, "per_class": recalls}


MACHINE = {"cpu": {"name": "Some CPU"}, "cores": 2, "torch": "2.9"}


def _evaluation(archive, accuracy, *, clean=None, similar=None, **others):
    return {
        "kind": "evaluation", "archive": archive, "archive_sha256": "ab" * 32, "recipe_sha256": "cd" * 32,
        "data": "fer2013", "data_sha256": "ef" * 32, "split": "public", "labels": "fer2013", "precision": "fp32",
        "report": _report(accuracy), "without_duplicates": clean and _report(clean, 90),
        "without_similar": similar and _report(similar, 80), "machine": MACHINE,
    } | others  # fmt: skip


def _probe(protocol, *accuracies, data="ck48", configuration="6-S-NC"):
    runs = [
        {"seed": seed, "people": _share(accuracy, 0.05), "report": _report(accuracy)}
        for seed, accuracy in enumerate(accuracies, start=1)
    ]
    return {
        "kind": "probe", "archive": "mobilenet", "archive_sha256": "ab" * 32, "data": data, "data_sha256": "ef" * 32,
        "configuration": configuration, "protocol": protocol, "faces": 309, "people_count": 106, "runs": runs,
        "machine": MACHINE,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    def write(**files):
        for name, values in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(values))
        return read_results(tmp_path)

    return write


def test_the_page_is_what_its_result_files_say():
    written = (DOCS / "ledger.md").read_text()
    assert written == render(read_results(DOCS / "results")), "run `ferserve ledger` and commit docs/ledger.md"


def test_every_claim_has_a_row_and_a_reason():
    page = render([])
    assert f"0 of {len(CLAIMS)} claims have a measurement" in page
    for claim in CLAIMS:
        assert claim.system in SYSTEMS
        assert (
            f"| {claim.what} ({claim.where}) | {claim.value:.2f} {claim.unit} | not measured: {claim.why_not} |" in page
        )
    # The figures that the page of the systems lists.
    values = {system: {claim.value for claim in CLAIMS if claim.system == system} for system in SYSTEMS}
    assert {60.91, 58.33, 59.15, 46.52, 45.64, 48.51} == values["S1"]
    assert {62.30, 65.04, 60.35, 63.34, 65.49, 66.57, 67.08, 48.15, 52.02, 51.90, 48.21} <= values["S2"]
    assert {99.0, 98.0, 96.5, 94.0, 74.5, 73.0, 59.0, 9.5} == values["S3"]
    assert {67.03, 68.31, 95.08, 96.92, 92.86, 95.24, 91.80, 71.43, 72.49, 50.27, 3.57, 46.93, 7.49} <= values["S4"]
    assert {33.46, 35.7, 56.21, 57.8} == values["S5"]


def test_one_run_has_its_own_interval_and_the_cleanest_figure_there_is(results):
    evidence = OnSplit(archives=("mobilenet",))
    found = find(evidence, results(one=_evaluation("mobilenet", 0.69, clean=0.68, similar=0.67)))
    assert (found.paper.value, found.paper.low, found.paper.high) == pytest.approx((69, 68, 70))
    assert found.paper.basis == "100 faces, Wilson"
    assert found.clean.value == pytest.approx(67)
    assert found.clean.basis == "80 faces without any like one in Training, Wilson"
    identical = find(evidence, results(one=_evaluation("mobilenet", 0.69, clean=0.68)))
    assert identical.clean.basis == "90 faces without an identical one in Training, Wilson"
    assert find(evidence, results(one=_evaluation("mobilenet", 0.69, precision="int8"))) is None
    assert find(evidence, results(one=_evaluation("mobilenet", 0.69, split="private"))) is None
    assert find(OnSplit(archives=("alexnet",)), results(one=_evaluation("mobilenet", 0.69))) is None


def test_several_runs_are_averaged(results):
    read = results(**{f"run{seed}": _evaluation("net-b", value) for seed, value in enumerate((0.61, 0.62, 0.63))})
    found = find(OnSplit(archives=("net-b",)), read)
    assert found.paper.value == pytest.approx(62)
    # t with two degrees of freedom: 4.3027 deviations of the mean.
    assert found.paper.high == pytest.approx(62 + 4.3027 * 1 / 3**0.5, abs=1e-3)
    assert found.paper.basis == "mean of 3 runs, Student's t"
    assert found.paper.files == ("run0.json", "run1.json", "run2.json")


def test_active_selection_stands_over_random(results):
    gain = {"mean": 0.011, "low": 0.004, "high": 0.018, "runs": 5}
    strategies = [
        {"strategy": "random", "mean_gain": None, "mean_ferplus_gain": None},
        {"strategy": "active", "mean_gain": gain, "mean_ferplus_gain": gain | {"mean": 0.02}},
    ]
    values = {
        "kind": "active-learning", "features": "hog", "web_faces": 19147, "data": "fer2013", "data_sha256": "ab" * 32,
        "strategies": strategies, "machine": MACHINE,
        "settings": {"start_labels": 500, "round_labels": 300, "rounds": 6, "seeds": [1, 2, 3, 4, 5]},
    }  # fmt: skip
    read = results(active=values)
    found = find(OverRandom(features="hog", start_labels=500), read)
    assert (found.paper.value, found.paper.low, found.paper.high) == pytest.approx((1.1, 0.4, 1.8))
    assert found.paper.basis == "mean over 6 rounds of 300 labels, 5 seeds in pairs, Student's t"
    assert find(
        OverRandom(features="hog", start_labels=500, figure="mean_ferplus_gain"), read
    ).paper.value == pytest.approx(2)
    assert find(OverRandom(features="mobilenet", start_labels=500), read) is None
    assert find(OverRandom(features="hog", start_labels=100), read) is None
    page = render(read)
    assert "active learning over random on 19,147 web faces: active +1.10 points" in page
    assert "hog, 500 labels to begin with, 300 a round, seeds 1, 2, 3, 4, 5" in page


def test_probes_stand_by_protocol(results):
    read = results(
        frames=_probe("frames", 0.9, 0.92),
        subjects=_probe("subjects", 0.8, 0.82),
        jaffe=_probe("frames", 0.7, data="jaffe", configuration=None),
        alone=_probe("leave-one-out", 0.6, data="jaffe", configuration=None),
    )
    found = find(ByFolds(recipes=("refined",), data="ck48", configuration="6-S-NC"), read)
    assert (found.paper.value, found.clean.value) == pytest.approx((91, 81))
    assert (found.clean.low, found.clean.high) == pytest.approx((76, 86))
    assert found.clean.basis == ("linear probe of mobilenet; 309 faces, 106 people resampled, mean of 2 groupings")
    jaffe = find(ByFolds(recipes=("refined",), data="jaffe"), read)
    assert (jaffe.clean.value, jaffe.clean.low, jaffe.clean.high) == pytest.approx((60, 55, 65))
    assert "106 people resampled" in jaffe.clean.basis
    assert find(ByFolds(recipes=("refined",), data="ck48", configuration="8-S"), read) is None


def _tuned(protocol, accuracy, seed=1, name="refined"):
    return {
        "kind": "fine-tuning", "recipe": {"name": name, "seed": seed}, "recipe_sha256": "cd" * 32, "data": "ck48",
        "data_sha256": "ef" * 32, "configuration": "6-S-NC", "protocol": protocol, "faces": 309,
        "report": _report(accuracy), "people": _share(accuracy, 0.04), "selected": _share(0.97), "machine": MACHINE,
    }  # fmt: skip


def test_fine_tuning_stands_before_a_probe(results):
    evidence = ByFolds(recipes=("refined",), data="ck48", configuration="6-S-NC")
    read = results(frames=_tuned("frames", 0.95), subjects=_tuned("subjects", 0.93), probe=_probe("frames", 0.9))
    found = find(evidence, read)
    assert (found.paper.value, found.clean.value) == pytest.approx((95, 93))
    assert (found.clean.low, found.clean.high) == pytest.approx((89, 97))
    assert "97.00 if each epoch is chosen on its own fold" in found.paper.basis
    assert "fine-tuning of refined: 95.00 %" in render(read)
    again = results(frames2=_tuned("frames", 0.96, seed=2))
    assert find(evidence, again).paper.basis == "mean of 2 runs, Student's t"
    other = ByFolds(recipes=("other",), data="ck48", configuration="6-S-NC", or_probe=False)
    assert find(other, again) is None


def test_other_kinds_are_found(results):
    row = {"archive": "mobilenet", "archive_sha256": "ab" * 32, "data": "jaffe", "data_sha256": "0" * 64,
           "configuration": None, "people": _share(0.5), "people_count": 10, "report": _report(0.5, 213)}  # fmt: skip
    speed = {"batch": 1, "clock": "core", "faces_per_s": {"median": 500, "low": 400, "high": 1000}}
    read = results(
        cross={"kind": "cross-dataset", "rows": [row], "machine": MACHINE},
        tradeoff={"candidates": [{"archive": "mobilenet", "precision": "int8", "speeds": [speed]}], "machine": MACHINE},
    )
    assert find(OnSet(data="jaffe"), read).paper.value == pytest.approx(50)
    time = find(ByTime(archive="mobilenet", precision="int8"), read).paper
    assert (time.value, time.low, time.high) == pytest.approx((2.0, 1.0, 2.5))
    page = render(read)
    assert "**-1.57**" in page  # 3.57 ms claimed, and less is better
    assert "archives on sets they never saw: jaffe 50.00 %" in page


def _occluded(fill="black", **shares):
    def of(data, accuracy, people):
        rows = [
            {"region": str(region), "accuracy": _share(accuracy - 0.1 * place), "people": people and _share(people),
             "difference": _share(-0.1 * place) if place else None}
            for place, region in enumerate(Region)
        ]  # fmt: skip
        return {"archive": "mobilenet", "archive_sha256": "ab" * 32, "data": data, "data_sha256": "0" * 64,
                "faces": 1000, "people_count": people and 106, "precision": "fp32", "rows": rows}  # fmt: skip

    sets = [of("ck48", 0.9, 0.8), of("fer2013.public", 0.7, None)]
    return {"kind": "occlusion", "fill": fill, "sets": sets, "machine": MACHINE} | shares


def test_the_occlusion_table_stands_beside_s3s(results):
    read = results(black=_occluded(), mean=_occluded("mean"))
    eyes = find(Occluded(region=Region.EYES), read).paper
    assert (eyes.value, eyes.low, eyes.high) == pytest.approx((80, 79, 81))
    assert eyes.basis == (
        "1000 faces, 106 people resampled, fp32, -20.00 points (-21.00 to -19.00) against none; FER-2013 PublicTest, "
        "1,000 faces, fp32: 50.00 % (49.00 to 51.00), -20.00 points (-21.00 to -19.00) against none"
    )
    assert eyes.files == ("black.json",)
    assert "against none" not in find(Occluded(region=Region.NONE), read).paper.basis.split(";")[0]
    assert find(Occluded(region=Region.EYES), results()[1:]) is None
    page = render(read)
    assert "parts of the face covered (black): mobilenet on ck48, mobilenet on fer2013.public" in page


def test_runs_are_listed_with_seed_and_data(results):
    recipe = {"name": "net-b-faces", "seed": 3}
    run = {"kind": "training", "recipe": recipe, "recipe_sha256": "cd" * 32, "machine": MACHINE}
    learnt = run | {"calibration": {"accuracy": _share(0.4), "data_sha256": "ef" * 32}}
    scaled = run | {"calibration": {"after": _report(0.6), "data_sha256": "ef" * 32}}
    page = render(results(faces=learnt, expressions=scaled))
    assert (
        "| faces.json | training of net-b-faces: validation 40.00 % | recipe cdcdcdcdcdcd, seed 3 | fitted on" in page
    )
    assert "validation 60.00 %" in page


def test_a_gap_is_bold_only_where_the_whole_interval_is_better(results):
    assert "| **+1.97** |" in render(results(one=_evaluation("mobilenet", 0.69)))
    wide = _evaluation("mobilenet", 0.69) | {"report": _report(0.69) | {"accuracy": _share(0.69, 0.03)}}
    assert "| +1.97 |" in render(results(one=wide))


def test_what_is_no_result_is_named(tmp_path):
    with pytest.raises(DataError, match="expected a folder of result files, found none at"):
        read_results(tmp_path / "nowhere")
    (tmp_path / "x.json").write_text('{"detectors": {}}')
    assert read_results(tmp_path) == []
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match=r"x\.json: expected a result file of train or evaluate, got a list"):
        read_results(tmp_path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="got no JSON"):
        read_results(tmp_path)


def test_the_verb_writes_and_checks(tmp_path):
    app = Typer()
    app.command()(ledger)
    out = tmp_path / "ledger.md"
    flags = ["--results", str(DOCS / "results"), "--out", str(out)]
    missing = CliRunner().invoke(app, [*flags, "--check"])
    assert isinstance(missing.exception, DataError)
    assert CliRunner().invoke(app, flags).exit_code == 0
    assert CliRunner().invoke(app, [*flags, "--check"]).exit_code == 0
    out.write_text(out.read_text() + "by hand\n")
    edited = CliRunner().invoke(app, [*flags, "--check"])
    assert "expected what `ferserve ledger --results" in edited.exception.message


def test_a_frames_stages_stand_against_the_papers(results):
    def spread(value):
        return {"median_ms": value, "low_ms": value - 0.5, "high_ms": value + 0.5}

    def frame(faces):
        return {"faces": faces, "total": spread(10.0 * faces), "detect": spread(8.0), "preprocess": spread(0.2 * faces)}

    machine = {"cpu": "Some CPU", "cores": 2, "onnxruntime": "1.30"}
    table = {"kind": "realtime", "machine": machine, "model": "mobilenet 2.0.0", "precision": "int8"}
    read = results(realtime=table | {"frames": [frame(4), frame(1)]})
    found = find(InFrame(stage="preprocess"), read).paper
    assert (found.value, found.low, found.high) == (0.2, -0.3, 0.7)
    page = render(read)
    assert "| 46.93 ms | 8.00 ms (7.50 to 8.50); quartiles, one core | **-38.93** |" in page
    assert (
        "| realtime.json | mobilenet 2.0.0 in int8, a frame with 4 faces 40.0 ms, 1 faces 10.0 ms |  | one photo | "
        "Some CPU, 2 cores, ONNX Runtime 1.30 |" in page
    )
    assert find(InFrame(stage="detect"), []) is None


def test_a_gpu_is_named_where_one_did_the_work(results):
    gpu = MACHINE | {"accelerator": "Some GPU"}
    assert "| Some GPU, 2 cores, torch 2.9 |" in render(results(a=_evaluation("mobilenet", 0.7, machine=gpu)))
    assert "| Some CPU, 2 cores, torch 2.9 |" in render(results(a=_evaluation("mobilenet", 0.7)))
