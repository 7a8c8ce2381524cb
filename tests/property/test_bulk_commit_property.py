"""Wherever the power goes, and however often: the rows are those of an undisturbed run, none twice."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bulk.disks import CrashingDisk, PowerCutError
from tests.bulk.rows import analysis, face, failed, item

from ferserve.serving.bulk.shards import ItemRows, read_rows
from ferserve.serving.bulk.store import OnChange, Store, begin_store

OUT = Path("/out")
SETTINGS = {"archive_sha256": "a"}
FACES = st.integers(0, 3)
"""0 stands for a picture that fails at first, and is one without a face when it is tried again."""


def outcome(faces: int, *, is_retry: bool):
    if faces == 0 and not is_retry:
        return failed()
    return analysis(*[face()] * faces)


def visible_rows(disk: CrashingDisk) -> Counter[tuple[str, int | None, str]]:
    """What a reader of the folder finds right now."""
    shards = [path for path in disk.files if path.suffix == ".parquet"]
    rows = [row for path in shards for row in read_rows(disk.files[path]).to_pylist()]
    return Counter((row["path"], row["face"], row["status"]) for row in rows)


def expected_rows(pictures: list[int], *, is_retry: bool) -> Counter[tuple[str, int | None, str]]:
    items = [item(b"", str(number), outcome(faces, is_retry=is_retry)) for number, faces in enumerate(pictures)]
    return Counter((row["path"], row["face"], row["status"]) for found in items for row in found.rows)


def run(disk: CrashingDisk, pictures: list[int], shard_items: int, **how) -> None:
    """One run over all pictures, as `ferserve score` goes about it."""
    store = begin_store(OUT, SETTINGS, disk=disk, **how)
    try:
        held = []
        for number, faces in enumerate(pictures):
            item_id = store.claim(str(number).encode())
            if item_id is None:
                continue
            held.append(item(item_id, str(number), outcome(faces, is_retry=how.get("retry_failed", False))))
            if len(held) == shard_items:
                _commit(store, held)
                held = []
        _commit(store, held)
        store.finish()
    finally:
        store.close()


def _commit(store: Store, held: list[ItemRows]) -> None:
    """One shard, staged in two pieces."""
    for piece in (held[: len(held) // 2], held[len(held) // 2 :]):
        if piece:
            store.stage(piece)
    store.commit()


def run_until_done(disk: CrashingDisk, cuts: list[int], pictures: list[int], shard_items: int, **how) -> None:
    """Run again after each power cut, the last time without one; a reader never finds a row twice."""
    for changes in (*cuts, None):
        disk.changes_left = changes
        try:
            run(disk, pictures, shard_items, **how)
        except PowerCutError:
            assert set(visible_rows(disk).values()) <= {1}


pictures = st.lists(FACES, min_size=1, max_size=8)
cuts = st.lists(st.integers(0, 12), max_size=4)


@given(pictures, cuts, st.integers(1, 5), st.data())
@settings(max_examples=20, deadline=None)
def test_rows_are_those_of_an_undisturbed_run(found, when, shard_items, data):
    disk = CrashingDisk(lambda choices: data.draw(st.integers(0, choices - 1)))
    run_until_done(disk, when, found, shard_items)
    assert visible_rows(disk) == expected_rows(found, is_retry=False)


@given(pictures, cuts, st.integers(1, 5), st.integers(1, 5), st.data())
@settings(max_examples=20, deadline=None)
def test_failed_pictures_that_are_tried_again_are_there_once(found, when, first_items, then_items, data):
    disk = CrashingDisk(lambda choices: data.draw(st.integers(0, choices - 1)))
    run(disk, found, first_items)
    run_until_done(disk, when, found, then_items, retry_failed=True)
    assert visible_rows(disk) == expected_rows(found, is_retry=True)


@given(pictures, pictures, cuts, st.integers(1, 5), st.data())
@settings(max_examples=20, deadline=None)
def test_a_fresh_table_has_none_of_the_old_rows(old, new, when, shard_items, data):
    disk = CrashingDisk(lambda choices: data.draw(st.integers(0, choices - 1)))
    run(disk, old, shard_items)
    for changes in (*when[:1], None):
        disk.changes_left = changes
        with suppress(PowerCutError):
            begin_store(OUT, SETTINGS, disk=disk, on_change=OnChange.FRESH).close()
    run_until_done(disk, when, new, shard_items)
    assert visible_rows(disk) == expected_rows(new, is_retry=False)
