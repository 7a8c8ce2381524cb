"""The verbs that work in this process, over the real engine and a made-up archive."""

import csv
import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from ferserve.faces.archive import read_archive
from ferserve.faces.cpu import read_cpu
from ferserve.faces.precision import resolve_precision
from ferserve.serving.cli import main


@pytest.fixture
def run(capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture
def pictures(tmp_path, face_photo):
    """A folder with two photos of a face, one of none, and a file that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    (folder / "1.jpg").write_bytes(face_photo)
    (folder / "deeper" / "2.jpg").write_bytes(face_photo)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "flat.bmp").write_bytes(_flat_bmp())
    return folder


def _flat_bmp() -> bytes:
    done, encoded = cv2.imencode(".bmp", np.full((64, 64, 3), 128, np.uint8))
    assert done
    return encoded.tobytes()


def test_a_folder_becomes_a_table(run, pictures, tiny_archive, tmp_path):
    out = tmp_path / "scores.parquet"
    code, printed, _ = run("score", pictures, "--out", out, "--model", tiny_archive, "--json")
    rows = pq.read_table(out).to_pylist()
    summary = json.loads(printed)
    assert code == 0
    assert [(row["path"].removeprefix(f"{pictures}/"), row["status"]) for row in rows] == [
        ("1.jpg", "ok"),
        ("broken.png", "error"),
        ("flat.bmp", "no_face"),
        ("deeper/2.jpg", "ok"),
    ]
    assert (rows[1]["code"], rows[0]["model"]) == ("UNSUPPORTED_MEDIA", "tiny")
    assert {name: summary[name] for name in ("pictures", "faces", "without_face", "errors")} == {
        "pictures": 4, "faces": 2, "without_face": 1, "errors": 1,
    }  # fmt: skip
    assert sum(rows[0][label] for label in ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")) == (
        pytest.approx(1, abs=1e-5)
    )


def test_results_alone_go_to_standard_output(run, pictures, tiny_archive, tmp_path):
    out = tmp_path / "scores.csv"
    code, printed, told = run("score", pictures / "1.jpg", "--out", out, "--model", tiny_archive, "--threads", 1)
    assert (code, printed) == (0, "")
    assert "1 pictures, 1 faces" in told
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_a_file_that_cannot_be_read_is_a_row(run, pictures, tiny_archive, tmp_path):
    (pictures / "dangling.jpg").symlink_to(pictures / "absent.jpg")
    out = tmp_path / "scores.jsonl"
    code, _, _ = run("score", pictures, "--out", out, "--model", tiny_archive)
    rows = {row["path"].rpartition("/")[2]: row for row in map(json.loads, out.read_text().splitlines())}
    assert code == 0
    assert (rows["dangling.jpg"]["status"], rows["dangling.jpg"]["code"]) == ("error", "UNREADABLE")
    assert rows["dangling.jpg"]["message"] == "the file cannot be read: No such file or directory"


def test_crops_are_written_where_they_are_asked_for(run, pictures, tiny_archive, tmp_path):
    out, crops = tmp_path / "scores", pictures / "crops"
    flags = ("--out", out, "--model", tiny_archive, "--crops", crops)
    assert run("score", pictures, *flags)[0] == 0
    rows = {row["path"].removeprefix(f"{pictures}/"): row for row in pq.read_table(out).to_pylist()}
    named = {name: row["crop"] for name, row in rows.items()}
    assert (
        named["1.jpg"]
        == named["deeper/2.jpg"]
        == f"{rows['1.jpg']['content_sha256'][:2]}/" + (f"{rows['1.jpg']['content_sha256']}-0.png")
    )
    assert named["flat.bmp"] is None
    assert cv2.imread(str(crops / named["1.jpg"])).shape == (224, 224, 3)
    assert [path.suffix for path in crops.rglob("*") if path.is_file()] == [".png"]
    code, printed, _ = run("score", pictures, *flags, "--json")  # the crops themselves are no source
    assert (code, json.loads(printed)["pictures"], json.loads(printed)["kept"]) == (0, 0, 4)


def test_a_dry_run_says_how_long_it_would_take(run, pictures, tiny_archive, tmp_path):
    code, printed, _ = run("score", pictures, "--dry-run", "--model", tiny_archive, "--json")
    assert code == 0
    estimate = json.loads(printed)
    assert (estimate["pictures"], estimate["sampled"], estimate["faces"], estimate["errors"]) == (4, 4, 2, 1)
    assert estimate["seconds"] > 0
    code, printed, _ = run("score", pictures, "--dry-run", "--model", tiny_archive)
    assert (code, printed.splitlines()[0].partition(";")[0]) == (0, "4 pictures")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{pictures}", "--out", "{tmp}/x.csv", "--fresh", "--mix"], 2, "expected one of them at most"),
        (["{pictures}", "--out", "{tmp}/x.csv", "--endpoint", "h:1", "--threads", "2"], 2, "none with --threads"),
        (["{pictures}", "--out", "{tmp}/x.xlsx"], 2, "a name that ends in .parquet, .csv, .jsonl"),
        (["{pictures}", "--out", "{tmp}/absent/x.csv"], 2, "expected an existing folder"),
        (["{tmp}/absent", "--out", "{tmp}/x.csv"], 2, "which does not exist"),
        (["{tmp}/empty", "--out", "{tmp}/x.csv"], 2, "found none"),
        (["{pictures}", "--out", "{tmp}/x.csv", "--detector", "eyes"], 2, "detector must be one of"),
        (["{pictures}", "--out", "{tmp}/x.csv", "--precision", "fp64"], 2, "'fp64'"),
        (["{pictures}", "--out", "{tmp}/x.csv", "--model", "{tmp}/absent.mar"], 1, "absent.mar"),
        (["{pictures}"], 2, "--out"),
        (["{pictures}", "--out", "{tmp}/x.csv", "--max-faces", "0"], 2, "--max-faces"),
    ],
)
def test_a_run_that_cannot_be_says_why_and_writes_nothing(run, pictures, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.iterdir())
    filled = [argument.format(pictures=pictures, tmp=tmp_path) for argument in arguments]
    left, printed, told = run("score", *filled)
    assert (left, printed) == (code, "")
    assert message in " ".join(told.split())
    assert set(tmp_path.iterdir()) == before


def test_models_are_described_for_people_and_for_programs(run, tiny_archive):
    code, table, _ = run("models", tiny_archive)
    assert code == 0
    assert all(word in table for word in ("tiny", "0.0.1", "not measured", "0.0"))
    _, printed, _ = run("models", tiny_archive, "--json")
    (described,) = json.loads(printed)
    assert (described["name"], described["figures"]) == ("tiny", {"accuracy": 0.125})
    assert (described["precision"], described["precisions"]) == ("fp32", ["fp32"])
    assert len(described["archive_sha256"]) == 64
    assert described["size_bytes"] == tiny_archive.stat().st_size
    assert described["ms_per_face"] > 0
    assert run("models", tiny_archive, "--card") == (0, "# made up\n", "")


def test_models_say_which_precision_runs_here(run, both_precisions):
    here = resolve_precision("auto", read_archive(both_precisions), read_cpu())
    _, printed, _ = run("models", both_precisions, "--json")
    (described,) = json.loads(printed)
    assert (described["precision"], described["precisions"]) == (here, ["fp32", "int8"])
    _, table, _ = run("models", both_precisions)
    assert f" {here} " in table


def test_a_folder_is_scored_in_the_precision_asked_for(run, pictures, tiny_archive, both_precisions, tmp_path):
    here = resolve_precision("auto", read_archive(both_precisions), read_cpu())
    rows = {}
    for name, archive, flags in (
        ("tiny", tiny_archive, ()),
        ("fp32", both_precisions, ("--precision", "fp32")),
        ("auto", both_precisions, ()),
    ):
        out = tmp_path / f"{name}.jsonl"
        assert run("score", pictures / "1.jpg", "--out", out, "--model", archive, *flags)[0] == 0
        (rows[name],) = map(json.loads, out.read_text().splitlines())
    assert [rows[name]["precision"] for name in ("tiny", "fp32", "auto")] == ["fp32", "fp32", here]
    assert rows["fp32"]["happy"] == rows["tiny"]["happy"]
    assert (rows["auto"]["happy"] == rows["tiny"]["happy"]) is (here == "fp32")


def test_int8_of_an_archive_without_it_is_refused(run, pictures, tiny_archive, tmp_path):
    out = tmp_path / "x.csv"
    code, _, told = run("score", pictures, "--out", out, "--model", tiny_archive, "--precision", "int8")
    assert code == 1
    assert "expected a member model.int8.onnx" in " ".join(told.split())
    assert not out.exists()


def test_an_archive_that_does_not_exist_is_named(run, tmp_path):
    code, printed, told = run("models", tmp_path / "absent.mar")
    assert (code, printed) == (1, "")
    assert "absent.mar" in told


def test_bench_measures_every_stage_and_says_on_what(run, pictures, tiny_archive):
    code, printed, _ = run("bench", "stages", pictures / "1.jpg", "--model", tiny_archive, "--repeats", 5, "--json")
    report = json.loads(printed)
    assert code == 0
    assert [stage["stage"] for stage in report["stages"]] == [
        "decode", "detect", "preprocess one face", "infer, batch 1", "infer, batch 8", "one picture, whole path",
    ]  # fmt: skip
    for stage in report["stages"]:
        assert stage["repeats"] == 5
        assert 0 < stage["low_ms"] <= stage["median_ms"] <= stage["high_ms"]
    assert [stage["faces"] for stage in report["stages"]] == [0, 0, 0, 1, 8, 1]
    assert (report["faces_found"], report["picture"], report["model"]) == (1, "1.jpg", "tiny 0.0.1")
    assert report["precision"] == "fp32"
    assert report["machine"]["cpu"]
    assert report["machine"]["cores"] >= 1


def test_bench_prints_a_table_for_people(run, both_precisions):
    code, printed, _ = run("bench", "stages", "--model", both_precisions, "--repeats", 5)
    assert code == 0
    here = resolve_precision("auto", read_archive(both_precisions), read_cpu())
    assert f"both 0.0.1 in {here}, detector" in printed
    assert all(word in printed for word in ("decode", "infer, batch 8", "640 x 480 pixels of noise", "cpu"))


def test_bench_of_a_folder_holds_a_run_against_its_computation_alone(run, pictures, tiny_archive):
    flags = ("--model", tiny_archive, "--rounds", 2, "--pictures", 3, "--threads", 2)
    code, printed, _ = run("bench", "score", pictures, *flags, "--json")
    speed = json.loads(printed)
    assert code == 0
    assert (speed["pictures"], speed["threads"], speed["model"], speed["faces"]) == (3, 2, "tiny 0.0.1", 1)
    assert len(speed["alone_per_s"]) == len(speed["run_per_s"]) == len(speed["shares"]) == 2
    assert speed["shares"][0] == pytest.approx(speed["run_per_s"][0] / speed["alone_per_s"][0])
    assert speed["fer_per_s"] == speed["times_fer"] == speed["times_fer_faces"] == []
    code, printed, _ = run("bench", "score", pictures, *flags)
    assert "of the computation alone" in printed


def test_bench_of_a_folder_without_pictures_says_so(run, tmp_path, tiny_archive):
    (tmp_path / "empty").mkdir()
    code, _, told = run("bench", "score", tmp_path / "empty", "--model", tiny_archive)
    assert (code, "found none" in told) == (2, True)
