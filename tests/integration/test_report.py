"""`ferserve report` over real tables; the page is read by a parser, as a browser would."""

from html.parser import HTMLParser

import cv2
import numpy as np
import pyarrow as pa
import pytest
from tests.bulk.rows import analysis, face, failed, item

from ferserve.faces.labels import LABELS
from ferserve.serving.bulk.report.figures import TIMELINE_BINS, count
from ferserve.serving.bulk.report.page import FOLDERS_SHOWN, render
from ferserve.serving.bulk.rows import rows_of
from ferserve.serving.bulk.shards import SCHEMA
from ferserve.serving.bulk.store import open_store
from ferserve.serving.bulk.writers import write_file
from ferserve.serving.cli import main

VOID = {"meta", "br", "rect"}
SAD = np.array([0.1, 0.0, 0.1, 0.1, 0.6, 0.0, 0.1], dtype=np.float32)


class Page(HTMLParser):
    """Tables by id, every attribute that could load something, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.loads, self.open, self.timelines, self.text = {}, [], [], 0, ""
        self._id = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]
        self.loads += [tag] if tag in ("script", "link", "iframe", "object", "embed", "img") else []
        self.timelines += found.get("class") == "timeline"
        if tag not in VOID:
            self.open.append(tag)
        if found.get("id"):
            self._id = found["id"]
            self.tables[self._id] = []
        if tag in ("h2", "p"):
            self._id = None
        if tag == "tr" and self._id:
            self.tables[self._id].append([])
        if tag in ("td", "th") and self._id:
            self.tables[self._id][-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._id and self.open[-1] in ("td", "th", "small") and self.tables[self._id]:
            self.tables[self._id][-1][-1] += data.strip()


def pieces():
    """Two folders, an archive and a video; one of everything that can become of a picture."""
    outcomes = {
        "a/1.jpg": analysis(face(), face(scores=SAD, uncertain=False)),
        "a/<b>.jpg": analysis(),
        "b.zip!/x/2.jpg": analysis(face(scores=SAD, uncertain=False)),
        "c.jpg": failed(),
    }
    yield [row for path, outcome in outcomes.items() for row in rows_of(path, outcome)]
    yield [
        row for time_s in (0.0, 1.0, 2.0) for row in rows_of(f"v.mp4#t={time_s:.3f}", analysis(face()), time_s=time_s)
    ]


def tables():
    return (pa.Table.from_pylist(rows, schema=SCHEMA) for rows in pieces())


def page_of(rows, **how) -> Page:
    return Page(render(count(rows), name="scores", **{"is_finished": True, **how}))


def test_the_page_holds_the_counts():
    page = page_of(pieces())
    assert dict(page.tables["totals"]) == {
        "pictures": "7", "without a face": "1", "errors": "1", "faces": "6",
        "uncertain faces": "4", "faces that are hard to read": "6",
    }  # fmt: skip
    expressions = {row[0]: row[1:3] for row in page.tables["expressions"]}
    assert list(expressions) == list(LABELS)
    assert expressions["happy"] == ["4", "66.7%"]
    assert expressions["sad"] == ["2", "33.3%"]
    assert page.tables["codes"][1:] == [["INVALID_IMAGE", "1", "expected a picture, got 3 bytes"]]
    assert [row[:2] for row in page.tables["issues"]] == [["small", "6"], ["blurred", "6"]]
    assert {row[0]: row[1] for row in page.tables["sizes"]}["16 to 32 px"] == "6"
    assert page.tables["sources"][1][:4] == ["m", "1", "int8", "haar"]


def test_folders_archives_and_videos_have_a_line_each():
    head, *lines = page_of(pieces()).tables["folders"]
    assert head[-7:] == list(LABELS)
    assert [line[:6] for line in lines] == [
        [".", "1", "0", "1", "0", "0"],
        ["a", "2", "1", "0", "2", "1"],
        ["b.zip", "1", "0", "0", "1", "0"],
        ["v.mp4", "3", "0", "0", "3", "3"],
    ]


def test_a_video_has_a_timeline_and_a_long_one_is_no_wider():
    page = page_of(pieces())
    assert page.timelines == 1
    frames = 10 * TIMELINE_BINS
    rows = [row for number in range(frames) for row in rows_of(f"v#t={number}", analysis(face()), time_s=float(number))]
    (moments,) = count([rows]).videos().values()
    assert len(moments) == TIMELINE_BINS
    assert moments[0].scores[3] == pytest.approx(0.5)
    assert moments[1].time_s == 10.0


def test_the_page_asks_nobody_for_anything_and_what_it_quotes_is_text():
    page = page_of([[*rows_of("<script>alert(1)</script>/a.jpg", analysis(face()))]])
    assert page.loads == []
    assert page.tables["folders"][1][0] == "<script>alert(1)</script>"


def test_a_table_that_is_not_finished_says_so():
    assert "did not get to the end" in page_of(pieces(), is_finished=False).text
    assert "did not get to the end" not in page_of(pieces()).text


def test_an_empty_table_and_one_without_paths_have_a_page():
    assert page_of([]).tables["totals"][0] == ["pictures", "0"]
    assert "folders" not in page_of([rows_of(None, analysis(face()))]).tables


def test_many_folders_are_cut_to_the_largest():
    rows = [row for number in range(FOLDERS_SHOWN + 5) for row in rows_of(f"{number}/a.jpg", analysis())]
    rows += rows_of("7/b.jpg", analysis())
    page = page_of([rows])
    assert len(page.tables["folders"]) == FOLDERS_SHOWN + 1
    assert page.tables["folders"][1][0] == "7"
    assert "5 smaller folders are left out" in page.text


@pytest.fixture
def run(capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
def test_every_format_gives_the_same_page(run, tmp_path, name):
    write_file(tmp_path / name, tables())
    code, printed, _ = run("report", tmp_path / name)
    assert (code, printed.strip()) == (0, str(tmp_path / "x.html"))
    assert Page((tmp_path / "x.html").read_text()).tables == page_of(pieces()).tables


def test_a_folder_of_shards_has_a_page_beside_it(run, tmp_path):
    with open_store(tmp_path / "scores", {}) as store:
        store.stage([item(store.claim(b"a"), "a.jpg", analysis(face()))])
        store.commit()
    code, printed, _ = run("report", tmp_path / "scores")
    assert (code, printed.strip()) == (0, str(tmp_path / "scores.html"))
    page = Page((tmp_path / "scores.html").read_text())
    assert page.tables["totals"][0] == ["pictures", "1"]
    assert "did not get to the end" in page.text


def test_what_is_no_table_is_refused(run, tmp_path):
    (tmp_path / "x.csv").write_text("name,age\nada,36\n")
    (tmp_path / "x.txt").write_text("text")
    for name, message in (("x.csv", "expected a table that"), ("x.txt", "ends in .parquet"), (".", "found none")):
        code, printed, told = run("report", tmp_path / name, "--out", tmp_path / "page.html")
        assert (code, printed) == (2, "")
        assert message in " ".join(told.split())
    assert not (tmp_path / "page.html").exists()


def test_a_video_is_copied_with_its_faces(run, tmp_path):
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(20):
        writer.write(np.full((48, 64, 3), 128, np.uint8))
    writer.release()
    rows = [
        *rows_of(f"{video}#t=0.000", analysis(), time_s=0.0),
        *rows_of(f"{video}#t=1.000", analysis(face()), time_s=1.0),
    ]
    write_file(tmp_path / "scores.parquet", [pa.Table.from_pylist(rows, schema=SCHEMA)])
    code, printed, _ = run("report", tmp_path / "scores.parquet", "--annotate", video)
    copy = tmp_path / "clip-annotated.mp4"
    assert (code, printed.splitlines()) == (0, [str(tmp_path / "scores.html"), str(copy)])
    capture = cv2.VideoCapture(str(copy))
    spread = []
    while (read := capture.read())[0]:
        spread.append(float(read[1].std()))
    assert len(spread) == 20
    assert max(spread[:9]) < 3 < min(spread[11:])
    code, _, told = run("report", tmp_path / "scores.parquet", "--annotate", tmp_path / "other.mp4")
    assert (code, "found none" in told) == (2, True)
