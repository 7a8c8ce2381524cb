import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ferserve.faces.errors import InvalidImageError
from ferserve.faces.labels import LABELS
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.serving.bulk.pictures import find_pictures, shown
from ferserve.serving.bulk.rows import COLUMNS, rows_of
from ferserve.serving.bulk.writers import ROWS_PER_GROUP, check_out, open_table
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import ImageAnalysis, ModelRef, StageTimings

NAMES = [column.name for column in COLUMNS]
SCORES = np.array([0.1, 0.0, 0.1, 0.5, 0.1, 0.1, 0.1], dtype=np.float32)


def face(*, landmarks: bool = True) -> ScoredFace:
    return ScoredFace(
        detection=Detection(
            box=Box(x0=1.5, y0=2.5, x1=31.5, y1=42.5),
            score=0.9,
            landmarks=np.arange(10, dtype=np.float32).reshape(5, 2) if landmarks else None,
        ),
        scores=SCORES,
        uncertain=True,
        quality=Quality(
            size_px=30.0,
            sharpness=12.0,
            yaw=0.25 if landmarks else None,
            roll_deg=-3.0 if landmarks else None,
            issues=(QualityIssue.SMALL, QualityIssue.BLURRED),
        ),
    )


def analysis(*faces: ScoredFace) -> ImageAnalysis:
    return ImageAnalysis(
        width_px=64,
        height_px=48,
        faces=faces,
        detector="haar",
        model=ModelRef(name="m", version="1", archive_sha256="a" * 64, preprocess_sha256="b" * 64, precision="int8"),
        timings=StageTimings(),
    )


ROWS = [
    *rows_of("a.jpg", analysis(face(), face(landmarks=False))),
    *rows_of("b.jpg", analysis()),
    *rows_of("c,\n.jpg", InvalidImageError("expected a picture, got 3 bytes")),
]


def test_every_row_has_every_column_in_order():
    assert all(list(row) == NAMES for row in ROWS)


def test_a_face_has_a_row_with_its_number_box_landmarks_and_scores():
    first, second = ROWS[:2]
    assert (first["status"], first["face"], first["expression"], first["uncertain"]) == ("ok", 0, "happy", True)
    assert [first[f"box_{edge}"] for edge in ("x0", "y0", "x1", "y1")] == [1.5, 2.5, 31.5, 42.5]
    assert (first["right_eye_x"], first["right_eye_y"], first["left_mouth_corner_y"]) == (0.0, 1.0, 9.0)
    assert [first[label] for label in LABELS] == [0.1, 0.0, 0.1, 0.5, 0.1, 0.1, 0.1]
    assert first["issues"] == "small blurred"
    assert (second["face"], second["right_eye_x"], second["yaw"]) == (1, None, None)


def test_a_picture_without_a_face_has_one_row_that_says_so():
    (row,) = rows_of("b.jpg", analysis())
    assert (row["status"], row["face"], row["happy"], row["code"]) == ("no_face", None, None, None)
    assert (row["width_px"], row["model"]) == (64, "m")


def test_an_error_has_one_row_with_code_and_message():
    (row,) = rows_of("c.jpg", InvalidImageError("expected a picture"))
    assert (row["status"], row["code"], row["message"]) == ("error", "INVALID_IMAGE", "expected a picture")


def test_an_unforeseen_error_says_nothing_of_itself():
    (row,) = rows_of("c.jpg", RuntimeError("secret"))
    assert (row["code"], row["message"]) == ("INTERNAL", "internal error")


def write(out: Path, rows, *, interrupted: bool = False) -> None:
    with open_table(out) as table:
        table.write(rows)
        if interrupted:
            raise KeyboardInterrupt


def test_parquet_holds_the_rows_with_types_and_meanings(tmp_path):
    write(tmp_path / "x.parquet", ROWS)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == NAMES
    assert str(table.schema.field("happy").type) == "float"
    assert table.schema.field("path").metadata == {b"meaning": b"the picture, as it was found"}
    read = table.to_pylist()
    assert [row["path"] for row in read] == ["a.jpg", "a.jpg", "b.jpg", "c,\n.jpg"]
    assert read[0]["happy"] == pytest.approx(0.5)
    assert read[3]["happy"] is None


def test_parquet_is_written_in_groups_so_that_memory_is_bounded(tmp_path):
    with open_table(tmp_path / "x.parquet") as table:
        for _ in range(ROWS_PER_GROUP):
            table.write(ROWS[:2])
    written = pq.ParquetFile(tmp_path / "x.parquet")
    assert written.metadata.num_rows == 2 * ROWS_PER_GROUP
    assert written.num_row_groups == 2


def test_csv_holds_the_rows_as_text(tmp_path):
    write(tmp_path / "x.csv", ROWS)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == NAMES
    assert (read[0]["happy"], read[0]["angry"], read[2]["happy"], read[3]["path"]) == ("0.5", "0.1", "", "c,\n.jpg")
    assert [row["uncertain"] for row in read] == ["true", "true", "", ""]


def test_json_lines_holds_an_object_a_row(tmp_path):
    write(tmp_path / "x.jsonl", ROWS)
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == ROWS


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
def test_a_run_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, name):
    out = tmp_path / name
    out.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write(out, ROWS, interrupted=True)
    assert out.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


def test_an_unknown_extension_or_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet, \.csv, \.jsonl, got 'x\.xlsx'"):
        check_out(tmp_path / "x.xlsx")
    with pytest.raises(ConfigError, match="existing folder"):
        check_out(tmp_path / "absent" / "x.csv")


def test_folders_are_walked_in_order_for_pictures_and_named_files_are_taken_as_they_are(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "a/3.webp", "a/notes.txt", "0.jpeg", "odd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures([tmp_path, tmp_path / "odd"])]
    assert found == ["0.jpeg", "a/3.webp", "b/1.jpg", "b/2.PNG", "odd"]


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent, which does not exist"):
        list(find_pictures([tmp_path / "absent"]))


def test_a_name_that_is_no_utf8_can_be_written():
    assert shown(Path(os.fsdecode(b"caf\xe9.jpg"))) == "caf�.jpg"
