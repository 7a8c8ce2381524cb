import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.bulk.disks import FullDisk
from tests.bulk.rows import analysis, face, failed, item

from ferserve.serving.bulk import disk
from ferserve.serving.bulk.disk import OutputError, RealDisk, write_whole
from ferserve.serving.bulk.shards import OpenShard, read_commit, without_failed
from ferserve.serving.bulk.store import MANIFEST, OnChange, begin_store, open_store
from ferserve.serving.errors import ConfigError

SETTINGS = {"archive_sha256": "a" * 64, "exact": False}
OTHERS = {"archive_sha256": "b" * 64, "exact": False}
PATHS = ("a.jpg", "b.jpg", "c.jpg")


def sha(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def fill(store, *paths, outcome=None):
    """Claim and commit what has no rows yet, in one shard; the paths that it was."""
    items = []
    for path in paths:
        item_id = store.claim(path.encode())
        if item_id is not None:
            items.append(item(item_id, path, outcome or analysis(face(), face()), sha(path)))
    if items:
        store.stage(items)
        store.commit()
    return [found.rows[0]["path"] for found in items]


def statuses(folder: Path):
    return [(row["path"], row["status"]) for row in pq.read_table(folder).to_pylist()]


def test_rows_are_there_for_any_reader_of_parquet_folders(tmp_path):
    with open_store(tmp_path / "out", SETTINGS) as store:
        fill(store, "a.jpg")
        fill(store, "b.jpg", outcome=analysis())
        assert statuses(tmp_path / "out") == [("a.jpg", "ok"), ("a.jpg", "ok"), ("b.jpg", "no_face")]


def test_a_second_run_takes_on_what_the_first_did_not_do(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        assert fill(store, "a.jpg", "b.jpg", "a.jpg") == ["a.jpg", "b.jpg"]
    with open_store(tmp_path, SETTINGS) as store:
        assert store.items == 2
        assert fill(store, *PATHS) == ["c.jpg"]
    assert [path for path, _ in statuses(tmp_path)] == ["a.jpg", "a.jpg", "b.jpg", "b.jpg", "c.jpg", "c.jpg"]


def test_rows_of_a_content_are_found_again_in_this_run_and_in_the_next(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        assert store.rows_of_content(sha("b.jpg")) is None
        fill(store, "a.jpg", "b.jpg")
        assert [row["path"] for row in store.rows_of_content(sha("b.jpg"))] == ["b.jpg", "b.jpg"]
    with open_store(tmp_path, SETTINGS) as store:
        assert [row["face"] for row in store.rows_of_content(sha("b.jpg"))] == [0, 1]


def test_staged_rows_are_found_by_their_content_before_they_are_committed(tmp_path):
    with open_store(tmp_path / "out", SETTINGS) as store:
        fill(store, "a.jpg")
        store.stage([item(store.claim(b"b.jpg"), "b.jpg", analysis(face()), sha("b.jpg"))])
        store.stage([item(store.claim(b"c.jpg"), "c.jpg", analysis(face(), face()), sha("c.jpg"))])
        assert [(row["path"], row["face"]) for row in store.rows_of_content(sha("c.jpg"))] == [
            ("c.jpg", 0),
            ("c.jpg", 1),
        ]
        assert {path for path, _ in statuses(tmp_path / "out")} == {"a.jpg"}
        assert store.items == 1
        store.commit()
        assert [path for path, _ in statuses(tmp_path / "out")][-3:] == ["b.jpg", "c.jpg", "c.jpg"]
        assert [row["path"] for row in store.rows_of_content(sha("b.jpg"))] == ["b.jpg"]
        assert store.items == 3


def test_an_error_that_the_same_bytes_always_give_is_found_again_and_another_one_is_not(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        fill(store, "a.jpg", outcome=failed())
        fill(store, "b.jpg", outcome=RuntimeError("a fault of ours"))
        assert store.rows_of_content(sha("a.jpg"))[0]["code"] == "INVALID_IMAGE"
        assert store.rows_of_content(sha("b.jpg")) is None


def test_failed_items_are_taken_up_again_when_told_to(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        fill(store, "a.jpg", "b.jpg")
        fill(store, "c.jpg", "d.jpg", outcome=failed())
        store.stage([item(store.claim(b"e"), "e.jpg", failed()), item(store.claim(b"f"), "f.jpg", analysis())])
        store.commit()
    with open_store(tmp_path, SETTINGS) as store:
        assert fill(store, *PATHS) == []
    with open_store(tmp_path, SETTINGS, retry_failed=True) as store:
        assert store.items == 3
        assert fill(store, *PATHS, "d.jpg", "f") == ["c.jpg", "d.jpg"]
    assert sorted(set(statuses(tmp_path))) == [
        ("a.jpg", "ok"), ("b.jpg", "ok"), ("c.jpg", "ok"), ("d.jpg", "ok"), ("f.jpg", "no_face"),
    ]  # fmt: skip


def test_other_settings_are_refused_by_name(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        fill(store, "a.jpg")
    with (
        pytest.raises(ConfigError, match=r"archive_sha256 'a{64}' is now 'b{64}'.*--fresh.*--mix"),
        open_store(tmp_path, OTHERS),
    ):
        pass
    assert statuses(tmp_path) == [("a.jpg", "ok")] * 2


def test_fresh_begins_anew(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        fill(store, "a.jpg")
    with open_store(tmp_path, OTHERS, on_change=OnChange.FRESH) as store:
        assert fill(store, "b.jpg") == ["b.jpg"]
    assert statuses(tmp_path) == [("b.jpg", "ok")] * 2


def test_mixed_rows_are_kept_and_their_contents_are_scored_anew(tmp_path):
    with open_store(tmp_path, SETTINGS) as store:
        fill(store, "a.jpg")
    with open_store(tmp_path, OTHERS, on_change=OnChange.MIX) as store:
        assert store.rows_of_content(sha("a.jpg")) is None
        assert fill(store, "a.jpg", "b.jpg") == ["b.jpg"]
        assert store.rows_of_content(sha("b.jpg")) is not None


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for on_change in OnChange:
        with (
            pytest.raises(ConfigError, match=r"one that holds notes\.txt"),
            open_store(tmp_path, SETTINGS, on_change=on_change),
        ):
            pass
    (tmp_path / "notes.txt").unlink()
    with open_store(tmp_path, SETTINGS):
        pass
    (tmp_path / "part-000007.parquet").write_bytes(b"mine")
    with (
        pytest.raises(ConfigError, match=r"part-000007.parquet: expected a Parquet file that"),
        open_store(tmp_path, SETTINGS),
    ):
        pass
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(ConfigError, match="expected a manifest"), open_store(tmp_path, SETTINGS):
        pass


def test_two_runs_do_not_write_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ferserve.serving.bulk.store import open_store\n"
        "with open_store(Path(sys.argv[1]), {}): pass"
    )
    with open_store(tmp_path, {}):
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "another run writes there" in other.stderr


def test_a_full_disk_keeps_what_was_committed_and_says_what_to_do(tmp_path):
    full = FullDisk(files_left=2)
    store = begin_store(tmp_path, SETTINGS, disk=full)
    fill(store, "a.jpg")
    with pytest.raises(OutputError, match=r"the disk is full.*run the same command again"):
        fill(store, "b.jpg")
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "part-000000.parquet"]
    with open_store(tmp_path, SETTINGS) as store:
        assert fill(store, "a.jpg", "b.jpg") == ["b.jpg"]


def test_a_file_that_cannot_be_finished_gives_its_room_back(tmp_path, monkeypatch):
    def no_room(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", no_room)
    with pytest.raises(OutputError):
        write_whole(RealDisk(), tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def written(items) -> bytes:
    shard = OpenShard(0)
    shard.add(items)
    return shard.written(run="r", settings="s")


def test_a_shard_says_whose_rows_it_holds():
    items = [item(b"1" * 16, "a.jpg", analysis(face(), face())), item(b"\xff" * 16, "b.jpg", failed())]
    data = written(items)
    commit = read_commit(data)
    assert (commit.run, commit.settings) == ("r", "s")
    assert list(commit.spans()) == [(b"1" * 16, 0, 2), (b"\xff" * 16, 2, 1)]
    kept, failures = without_failed(data)
    assert (list(read_commit(kept).spans()), failures) == ([(b"1" * 16, 0, 2)], 1)
    assert without_failed(written(items[1:])) == (None, 1)


def test_a_table_knows_items_without_giving_their_paths_away(tmp_path):
    with open_store(tmp_path / "one", SETTINGS) as one, open_store(tmp_path / "two", SETTINGS) as two:
        assert one.claim(b"a.jpg") != two.claim(b"a.jpg")
