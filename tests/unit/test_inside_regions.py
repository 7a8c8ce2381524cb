import json
from dataclasses import dataclass

import numpy as np
import pytest
from tests.made_up import data_sets as made_up
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.types import Box, Detection
from ferserve.training.cli.inside import inside
from ferserve.training.data.errors import DataError
from ferserve.training.inside.landmarks import ENLARGE, USUAL, find_landmarks
from ferserve.training.inside.occlusion import read_occlusion
from ferserve.training.inside.regions import TABLE_6, Region, cover, face_coordinates, region_masks

SIDE_PX = 48
UPRIGHT = np.array([[[14, 18], [34, 18], [24, 28], [16, 38], [32, 38]]], np.float32)
"""Eyes 20 px apart, the mouth 20 px below them and 16 px wide."""


def test_the_order_is_that_of_table_6():
    assert [str(region) for region in Region] == [
        "none", "cheeks and forehead", "eyes", "left half of the mouth", "bottom half of the mouth", "mouth",
        "mouth and eyes",
    ]  # fmt: skip
    assert list(TABLE_6) == list(Region)
    assert list(TABLE_6.values()) == [99.0, 96.5, 94.0, 74.5, 73.0, 59.0, 9.5]


def test_coordinates_are_half_at_the_eyes_and_one_at_the_mouth():
    x, y = face_coordinates(UPRIGHT, size_px=SIDE_PX)
    # Pixel (row 18, column 14) has its middle half a pixel right of and below the right eye, of 20 px a unit.
    assert (x[0, 18, 14], y[0, 18, 14]) == pytest.approx((-0.5 + 0.5 / 20, 0.5 / 20))
    assert (x[0, 38, 24], y[0, 38, 24]) == pytest.approx((0.5 / 20, 1 + 0.5 / 20))


def test_regions_cover_the_pixels_that_one_counts_by_hand():
    masks = {region: region_masks(UPRIGHT, region, size_px=SIDE_PX)[0] for region in Region}
    assert not masks[Region.NONE].any()
    # Eyes: 0.32 * 20 = 6.4 px either side of 14: columns 8 to 19 (middles 8.5 to 19.5); 4.8 px about 18: rows 13 to 22.
    rows, columns = np.nonzero(masks[Region.EYES][:, :24])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (13, 22, 8, 19)
    # Mouth: 1.25 * 8 = 10 px about 24: columns 14 to 33; rows from 18 + 0.8 * 20 = 34 to 18 + 1.45 * 20 = 47.
    rows, columns = np.nonzero(masks[Region.MOUTH])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (34, 46, 14, 33)
    assert np.nonzero(masks[Region.LEFT_MOUTH])[1].max() == 23
    assert np.nonzero(masks[Region.BOTTOM_MOUTH])[0].min() == 38


def test_what_is_covered_is_black_or_the_faces_own_mean():
    crops = np.full((1, SIDE_PX, SIDE_PX, 3), 100, np.uint8)
    crops[0, :24, :, 2] = 200
    masks = region_masks(UPRIGHT, Region.EYES, size_px=SIDE_PX)
    black, mean = cover(crops, masks), cover(crops, masks, with_mean=True)
    assert not black[masks].any()
    assert (mean[masks] == [100, 100, 150]).all()
    assert (black[~masks] == crops[~masks]).all()
    assert crops.min() == 100  # a copy


@dataclass
class _Eyes:
    """Finds a face, and a smaller one, in bright crops; one that is far away in grey ones; none in dark ones."""

    name: str = "eyes"

    def detect(self, image):
        side, brightness = image.shape[0], image.mean()
        assert side == ENLARGE * SIDE_PX
        if brightness < 50:
            return []
        scale = ENLARGE if brightness > 150 else ENLARGE / 6
        points = (UPRIGHT[0] * scale).astype(np.float32)
        large, small = Box(x0=0, y0=0, x1=side, y1=side), Box(x0=0, y0=0, x1=9, y1=9)
        return [
            Detection(box=small, score=0.9, landmarks=points / 9),
            Detection(box=large, score=0.8, landmarks=points),
        ]


def test_landmarks_come_from_the_largest_face_or_from_their_usual_places():
    crops = np.stack([np.full((SIDE_PX, SIDE_PX, 1), value, np.uint8) for value in (200, 100, 10)])
    seen = []
    landmarks, found = find_landmarks(crops, _Eyes(), on_face=lambda: seen.append(1))
    assert found.tolist() == [True, False, False]
    assert landmarks[0] == pytest.approx(UPRIGHT[0])
    assert landmarks[1] == pytest.approx(np.asarray(USUAL) * SIDE_PX)
    assert len(seen) == 3


def inside_verb(*arguments):
    app = Typer()
    app.add_typer(inside, name="inside")
    return CliRunner().invoke(app, ["inside", *map(str, arguments)])


@pytest.fixture
def run(tiny_archive, tmp_path):
    made_up.write_ck48(tmp_path / "ck48")

    return lambda *arguments: inside_verb("regions", tiny_archive, *arguments)


def test_the_table_has_a_row_a_region_each_against_none(run, tmp_path):
    result, plot = tmp_path / "occlusion.json", tmp_path / "regions.png"
    outcome = run("--data", f"ck48={tmp_path / 'ck48'}", "--result", result, "--plot", plot, "--json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(result.read_text())
    assert json.loads(outcome.stdout) == found
    assert (found["kind"], found["fill"]) == ("occlusion", "black")
    [of_ck] = found["sets"]
    assert (of_ck["data"], of_ck["faces"], of_ck["dropped"]) == ("ck48", 15, {"contempt": 3})
    assert of_ck["notes"][0] == "ck48 has no neutral: scores renormalised over the other 6"
    assert [row["region"] for row in of_ck["rows"]] == [str(region) for region in Region]
    none, *others = of_ck["rows"]
    assert none["difference"] is None
    assert none["covered"] == 0
    for row in others:
        change = row["people"]["value"] - none["people"]["value"]
        assert row["difference"]["value"] == pytest.approx(change)
        assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
        assert sum(row["named"].values()) == 15
        assert row["named"]["neutral"] == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert inside_verb("chart", result, result, "--out", tmp_path / "both.png").exit_code == 0
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    both = read_occlusion([result, result])
    assert [each.data for each in both.sets] == ["ck48", "ck48"]
    assert both.to_dict()["sets"][0] == of_ck | {name: tuple(of_ck[name]) for name in ("classes", "notes", "rows")}


def test_only_results_of_one_kind_and_fill_are_drawn_together(run, tmp_path):
    black, mean, other = (tmp_path / f"{name}.json" for name in ("black", "mean", "other"))
    for fill, path in (("black", black), ("mean", mean)):
        assert run("--data", f"ck48={tmp_path / 'ck48'}", "--fill", fill, "--result", path).exit_code == 0
    other.write_text('{"kind": "evaluation"}')
    with pytest.raises(DataError, match="expected result files of one --fill, got black and mean"):
        read_occlusion([black, mean])
    with pytest.raises(DataError, match=r"other\.json: expected a result file of `ferserve inside regions`"):
        read_occlusion([other])


def test_a_set_without_people_has_its_differences_by_faces(run, tmp_path):
    made_up.write_class_folders(tmp_path / "folders", ["happy", "sad"])
    outcome = run("--data", f"folders={tmp_path / 'folders'}", "--fill", "mean")
    assert outcome.exit_code == 0, outcome.output
    assert "parts covered mean" in outcome.stdout
    assert "usual places in 4" in " ".join(outcome.stdout.split())
    as_json = json.loads(run("--data", f"folders={tmp_path / 'folders'}", "--json").stdout)
    [row, *_] = as_json["sets"][0]["rows"][1:]
    assert row["people"] is None
    assert row["difference"]["low"] < row["difference"]["value"] + 1e-9


def test_a_set_of_no_expressions_is_refused(run, tmp_path):
    made_up.write_celeba(tmp_path / "celeba")
    outcome = run("--data", f"celeba={tmp_path / 'celeba'}")
    assert isinstance(outcome.exception, DataError)
    assert "expected a set of expressions, this one is of attributes" in str(outcome.exception)
