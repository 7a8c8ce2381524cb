import json
from dataclasses import dataclass

import numpy as np
import pytest
from tests.made_up import data_sets as made_up
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.index import open_archive
from ferserve.faces.labels import LABELS, Expression
from ferserve.faces.types import Box, Detection
from ferserve.training.cli.evaluate import evaluate
from ferserve.training.cross import FaceFinder, countable, evaluate_sets, restrict
from ferserve.training.data.catalog import parse_set
from ferserve.training.data.ck_frames import find_configuration
from ferserve.training.data.errors import DataError


@dataclass
class _Square:
    """Finds one face in the middle, and a smaller one in a corner; none in pictures of 20 pixels and less."""

    name: str = "square"

    def detect(self, image):
        height, width = image.shape[:2]
        if width <= 20:
            return []
        middle = Box(x0=width / 4, y0=height / 4, x1=3 * width / 4, y1=3 * height / 4)
        return [Detection(box=box, score=0.9, landmarks=None) for box in (middle, Box(x0=0, y0=0, x1=4, y1=4))]


FINDER = FaceFinder(name="square", sha256=None, detector=_Square())


@pytest.fixture
def run():
    app = Typer()
    app.command()(evaluate)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_scores_are_renormalised_over_the_classes_that_count():
    scores = np.array([[0.1, 0.1, 0.0, 0.2, 0.1, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    kept = restrict(scores, range(6))
    assert kept[0] == pytest.approx([0.2, 0.2, 0.0, 0.4, 0.2, 0.0, 0.0])
    assert kept[1] == pytest.approx([1 / 6] * 6 + [0.0])
    assert restrict(scores, range(7)) == pytest.approx(scores)


def test_ck48_counts_without_contempt_and_says_that_it_has_no_neutral(tmp_path):
    made_up.write_ck48(tmp_path)
    counted = countable(parse_set(f"ck48={tmp_path}", option="--data"), None)
    assert len(counted.pictures) == 15
    assert counted.classes == tuple(range(6))
    assert counted.pictures.dropped == {"contempt": 3}
    assert counted.notes == (
        "ck48 has no neutral: scores renormalised over the other 6",
        "3 pictures of contempt left out, which the archive does not name",
    )
    last = countable(parse_set(f"ck48={tmp_path}", option="--data"), find_configuration("6-S-NC"))
    assert len(last.pictures) == 5
    assert last.data_sha256 == counted.data_sha256


def test_what_cannot_be_counted_is_explained(tmp_path):
    made_up.write_celeba(tmp_path / "celeba")
    made_up.write_jaffe(tmp_path / "jaffe")
    made_up.write_class_folders(tmp_path / "folders", ["contempt"])
    with pytest.raises(DataError, match="celeba: expected a set of expressions, this one is of attributes"):
        countable(parse_set(f"celeba={tmp_path / 'celeba'}", option="--data"), None)
    with pytest.raises(DataError, match=r"--configuration: expected ck48 or ck_plus, got jaffe"):
        countable(parse_set(f"jaffe={tmp_path / 'jaffe'}", option="--data"), find_configuration("6-S-NC"))
    with pytest.raises(DataError, match=r"folders: expected pictures of angry, .*, none is left: {'contempt': 2}"):
        countable(parse_set(f"folders={tmp_path / 'folders'}", option="--data"), None)


def test_an_archive_is_measured_as_its_graph_scores(tiny_archive, tmp_path):
    made_up.write_ck48(tmp_path)
    source = parse_set(f"ck48={tmp_path}", option="--data")
    [scored] = evaluate_sets([str(tiny_archive)], [source], configuration=None, finder=FINDER, threads=1)
    row = scored.row
    assert (row.detector, row.not_found, row.people_count, row.report.faces) == (None, 0, 4, 15)
    assert row.archive_sha256 == open_archive(str(tiny_archive)).sha256
    assert row.classes == LABELS[:6]
    assert scored.scores[:, Expression.NEUTRAL].max() == 0.0
    right = scored.scores.argmax(axis=1) == scored.labels
    assert row.report.accuracy.value == pytest.approx(right.mean())
    assert row.people.low <= row.people.value <= row.people.high


def test_faces_are_cut_out_of_whole_pictures_and_misses_are_counted(tiny_archive, tmp_path):
    made_up.write_jaffe(tmp_path, ("KA", "KL"))
    made_up.write_picture(tmp_path / "KA.AN1.1.tiff", seed=5, side_px=20)
    source = parse_set(f"jaffe={tmp_path}", option="--data")
    [found] = evaluate_sets([str(tiny_archive)], [source], configuration=None, finder=FINDER, threads=1)
    assert (found.row.detector, found.row.not_found, found.row.report.faces) == ("square", 1, 14)


def test_the_verb_gives_one_report_or_a_matrix(tiny_archive, both_precisions, tmp_path, run):
    made_up.write_ck48(tmp_path / "ck48")
    made_up.write_class_folders(tmp_path / "expw", ["happy", "sad"])
    ck48, expw = f"ck48={tmp_path / 'ck48'}", f"expw_crops={tmp_path / 'expw'}"
    one = json.loads(run(tiny_archive, "--data", ck48, "--configuration", "6-S-NC", "--json").stdout)
    assert one["configuration"] == "6-S-NC"
    assert set(one["accuracy"]) == {"value", "low", "high"}
    assert {"ece", "per_class", "confusion", "notes"} <= set(one)
    result, plots = tmp_path / "result.json", tmp_path / "plots"
    both = ["--data", ck48, "--data", expw]
    printed = run(tiny_archive, both_precisions, *both, "--result", result, "--plots", plots)
    assert printed.exit_code == 0
    assert "ck48 has no neutral" in printed.stdout
    written = json.loads(result.read_text())
    assert (written["kind"], len(written["rows"])) == ("cross-dataset", 4)
    assert [(row["archive"], row["data"]) for row in written["rows"]] == [
        ("tiny", "ck48"), ("both", "ck48"), ("tiny", "expw_crops"), ("both", "expw_crops"),
    ]  # fmt: skip
    assert (plots / "tiny-ck48-confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (plots / "both-expw_crops-reliability.png").read_bytes().startswith(b"\x89PNG")


def test_the_verb_refuses_what_does_not_go_together(tiny_archive, tmp_path, run):
    made_up.write_ck48(tmp_path)
    ck48 = f"ck48={tmp_path}"
    for flags, message in [
        (["--data", ck48, "--labels", "ferplus"], "else ferplus=DIR"),
        (["--data", ck48, "--audit", "x.json"], "fer2013=DIR"),
        (["--data", ck48, "--data", ck48, "--probe", "subjects"], "expected one archive and one data set"),
        (["--data", ck48, "--served", "--probe", "subjects"], "expected it without --served"),
    ]:
        refused = run(tiny_archive, *flags)
        assert refused.exit_code == 2
        assert message in " ".join(refused.stderr.replace("│", " ").split())
