import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bulk.rows import SCORES, analysis, face

from ferserve.faces.errors import InvalidImageError
from ferserve.faces.labels import LABELS
from ferserve.serving.bulk.disk import OutputError
from ferserve.serving.bulk.rows import COLUMNS, rows_of
from ferserve.serving.bulk.shards import SCHEMA
from ferserve.serving.bulk.sources import SourceCode, SourceError, shown
from ferserve.serving.bulk.writers import is_file, write_file
from ferserve.serving.errors import ConfigError

NAMES = [column.name for column in COLUMNS]
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
    assert [np.float32(first[label]) for label in LABELS] == SCORES.tolist()
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


def test_an_error_of_a_source_keeps_its_code():
    (row,) = rows_of("c.jpg", SourceError(SourceCode.UNREADABLE, "the file cannot be read"))
    assert (row["code"], row["message"], row["content_sha256"]) == ("UNREADABLE", "the file cannot be read", None)


def test_rows_say_what_was_read_and_when_in_a_video():
    (row,) = rows_of("v.mp4#t=1.500", analysis(), content=b"\xab" * 32, time_s=1.5)
    assert (row["content_sha256"], row["time_s"]) == ("ab" * 32, 1.5)


def write(out: Path, rows, *, interrupted: bool = False) -> None:
    def tables():
        yield pa.Table.from_pylist(rows, schema=SCHEMA)
        if interrupted:
            raise KeyboardInterrupt

    write_file(out, tables())


def test_parquet_holds_the_rows_with_types_and_meanings(tmp_path):
    write(tmp_path / "x.parquet", ROWS)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == NAMES
    assert str(table.schema.field("happy").type) == "float"
    assert table.schema.field("width_px").metadata == {b"meaning": b"of the picture after EXIF rotation"}
    read = table.to_pylist()
    assert [row["path"] for row in read] == ["a.jpg", "a.jpg", "b.jpg", "c,\n.jpg"]
    assert read[0]["happy"] == pytest.approx(0.5)
    assert read[3]["happy"] is None


def test_csv_holds_the_rows_as_text(tmp_path):
    write(tmp_path / "x.csv", ROWS)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == NAMES
    assert (read[0]["happy"], read[0]["angry"], read[2]["happy"], read[3]["path"]) == ("0.5", "0.1", "", "c,\n.jpg")
    assert [row["uncertain"] for row in read] == ["true", "true", "", ""]


def test_json_lines_holds_an_object_a_row(tmp_path):
    write(tmp_path / "x.jsonl", ROWS)
    shortest = [
        {name: float(str(np.float32(value))) if isinstance(value, float) else value for name, value in row.items()}
        for row in ROWS
    ]
    assert shortest[0]["happy"] == 0.5
    assert shortest[0]["angry"] == 0.1
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == shortest


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
def test_a_run_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, name):
    out = tmp_path / name
    out.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write(out, ROWS, interrupted=True)
    assert out.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_leaves_the_earlier_file_and_says_so(tmp_path):
    def tables():
        yield from ()
        raise OSError(28, "No space left on device")

    (tmp_path / "x.csv").write_text("earlier")
    with pytest.raises(OutputError, match="the disk is full"):
        write_file(tmp_path / "x.csv", tables())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "earlier")]


def test_the_extension_tells_a_file_from_a_folder(tmp_path):
    assert is_file(tmp_path / "x.JSONL")
    assert not is_file(tmp_path / "scores")
    (tmp_path / "scores.v2").mkdir()
    assert not is_file(tmp_path / "scores.v2")


def test_an_unknown_extension_or_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet, \.csv, \.jsonl, got 'x\.xlsx'"):
        is_file(tmp_path / "x.xlsx")
    with pytest.raises(ConfigError, match="existing folder"):
        is_file(tmp_path / "absent" / "x.csv")


def test_a_name_that_is_no_utf8_can_be_written():
    assert shown(Path(os.fsdecode(b"caf\xe9.jpg"))) == "caf\ufffd.jpg"
