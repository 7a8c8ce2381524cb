"""A run over real files and a real table, with a scorer that needs no pictures."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pyarrow.parquet as pq
import pytest
from tests.bulk.rows import MODEL, analysis, face

from ferserve.faces.errors import InvalidImageError
from ferserve.serving.bulk import estimate, feed, pipeline
from ferserve.serving.bulk.estimate import estimate_run
from ferserve.serving.bulk.pipeline import WINDOW
from ferserve.serving.bulk.run import Job, run_bulk
from ferserve.serving.bulk.scoring import AnalystScorer, Scoring, scoring_settings
from ferserve.serving.bulk.sources import Finder
from ferserve.serving.errors import ConfigError, NotReadyError
from ferserve.serving.requests import AnalyzeOptions


@dataclass
class FakeScorer:
    """One face in everything; what is named in `errors` fails; what starts with `hold` waits for `release`."""

    errors: dict[bytes, Exception] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Condition = field(default_factory=asyncio.Condition)
    at_once: int = 0
    most_at_once: int = 0
    ends_at: bytes | None = None

    async def score(self, data):
        async with self.was_asked:
            self.asked.append(data)
            self.was_asked.notify_all()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if data.startswith(b"hold"):
                await self.release.wait()
            else:
                await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if data == self.ends_at:
            raise NotReadyError("no gateway there any more")
        return self.errors.get(data) or analysis(face())

    async def until_asked(self, pictures):
        async with self.was_asked:
            await self.was_asked.wait_for(lambda: len(self.asked) >= pictures)

    @asynccontextmanager
    async def scoring(self, *, concurrency: int = 4, exact: bool = False):
        options = AnalyzeOptions(exact=exact)
        yield Scoring(
            scorer=AnalystScorer(self, crops=None),
            settings=scoring_settings(MODEL, options, detector="haar", detector_sha256=None),
            concurrency=concurrency,
            max_image_bytes=1000,
        )


async def settle():
    """Let everything happen that is not waiting for something."""
    for _ in range(500):
        await asyncio.sleep(0)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    return place


@pytest.fixture
def score(folder, tmp_path):
    """Score the folder; the tally."""

    async def score(scorer, *, report=lambda _tally: None, concurrency=4, exact=False, clock=None, **settings):
        settings = {"finder": Finder(sources=[str(folder)]), "out": tmp_path / "out", **settings}
        clocks = {} if clock is None else {"clock": clock}
        return await run_bulk(Job(**settings), scorer.scoring(concurrency=concurrency, exact=exact), report, **clocks)

    return score


def table(out):
    return sorted(pq.read_table(out).to_pylist(), key=lambda row: row["path"] or "")


def put(folder, **pictures):
    for name, data in pictures.items():
        (folder / f"{name}.jpg").write_bytes(data)


async def test_every_picture_gets_rows_and_a_second_run_scores_nothing(folder, score, tmp_path):
    put(folder, a=b"1", b=b"2")
    first, second = FakeScorer(), FakeScorer()
    tally = await score(first)
    assert (tally.pictures, tally.faces, tally.kept) == (2, 2, 0)
    again = await score(second)
    assert (again.pictures, again.kept, again.passed_over, second.asked) == (0, 2, 2, [])
    rows = table(tmp_path / "out")
    assert [row["path"] for row in rows] == [f"{folder}/a.jpg", f"{folder}/b.jpg"]
    assert rows[0]["content_sha256"] == hashlib.sha256(b"1").hexdigest()


async def test_copies_are_scored_once_and_have_rows_of_their_own(folder, score, tmp_path):
    put(folder, a=b"same", b=b"same", c=b"other", d=b"same")
    scorer = FakeScorer()
    tally = await score(scorer)
    assert sorted(scorer.asked) == [b"other", b"same"]
    assert (tally.pictures, tally.repeated) == (4, 2)
    assert len({row["path"] for row in table(tmp_path / "out")}) == 4
    put(folder, e=b"same")
    later = FakeScorer()
    assert (await score(later)).repeated == 1
    assert later.asked == []
    *_, last = table(tmp_path / "out")
    assert (last["path"], last["expression"], last["happy"]) == (f"{folder}/e.jpg", "happy", pytest.approx(0.5))


async def test_a_copy_of_what_failed_by_accident_is_tried_for_itself(folder, score):
    put(folder, a=b"x", b=b"x")
    scorer = FakeScorer(errors={b"x": RuntimeError("by accident")})
    tally = await score(scorer, concurrency=1)
    assert (scorer.asked, tally.codes) == ([b"x", b"x"], {"INTERNAL": 2})


async def test_one_path_named_twice_has_one_set_of_rows(folder, score, tmp_path):
    put(folder, a=b"1")
    sources = [str(folder), str(folder / "a.jpg"), f"{folder}/*.jpg"]
    assert (await score(FakeScorer(), finder=Finder(sources=sources))).pictures == 1
    assert len(table(tmp_path / "out")) == 1


async def test_failed_pictures_are_tried_again_when_told_to(folder, score, tmp_path):
    put(folder, a=b"1", b=b"2")
    await score(FakeScorer(errors={b"2": InvalidImageError("expected a picture")}))
    assert [row["code"] for row in table(tmp_path / "out")] == [None, "INVALID_IMAGE"]
    again = FakeScorer()
    tally = await score(again, retry_failed=True)
    assert (again.asked, tally.kept) == ([b"2"], 1)
    assert [row["status"] for row in table(tmp_path / "out")] == ["ok", "ok"]


async def test_other_settings_are_refused_before_anything_is_scored(folder, score):
    put(folder, a=b"1")
    await score(FakeScorer())
    scorer = FakeScorer()
    with pytest.raises(ConfigError, match="exact False is now True"):
        await score(scorer, exact=True)
    with pytest.raises(ConfigError, match=r"frames_per_s 1\.0 is now 2.0"):
        await score(scorer, finder=Finder(sources=[str(folder)], frames_per_s=2.0))
    assert scorer.asked == []


async def test_without_paths_a_table_names_contents_alone_and_goes_on_all_the_same(folder, score, tmp_path):
    put(folder, a=b"1", b=b"2", c=b"1")
    await score(FakeScorer(), with_paths=False)
    later = FakeScorer()
    await score(later, with_paths=False)
    rows = table(tmp_path / "out")
    assert {row["path"] for row in rows} == {None}
    assert sorted(row["content_sha256"] for row in rows) == sorted(
        hashlib.sha256(data).hexdigest() for data in (b"1", b"1", b"2")
    )
    assert later.asked == []
    assert all(b"pictures" not in path.read_bytes() for path in (tmp_path / "out").iterdir())


async def test_a_run_that_comes_to_an_end_keeps_what_it_scored(folder, score, tmp_path):
    put(folder, a=b"1", b=b"2", c=b"end", d=b"4")
    with pytest.raises(NotReadyError):
        await score(FakeScorer(ends_at=b"end"), concurrency=1)
    assert [row["path"] for row in table(tmp_path / "out")] == [f"{folder}/a.jpg", f"{folder}/b.jpg"]
    again = FakeScorer()
    await score(again)
    assert sorted(again.asked) == [b"4", b"end"]


async def test_a_run_that_is_interrupted_keeps_what_it_scored(folder, score, tmp_path):
    put(folder, a=b"1", b=b"2", c=b"hold")
    scorer, told = FakeScorer(), asyncio.Event()

    def report(tally):
        if tally.pictures == 2:
            told.set()

    run = asyncio.create_task(score(scorer, report=report))
    await told.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [row["path"] for row in table(tmp_path / "out")] == [f"{folder}/a.jpg", f"{folder}/b.jpg"]


async def test_shards_are_committed_as_time_goes_by(folder, score, tmp_path):
    put(folder, **{f"p{number}": bytes([number]) for number in range(6)})
    now = iter(range(0, 10_000, 4))
    await score(FakeScorer(), clock=lambda: float(next(now)), commit_every_s=10.0, concurrency=1)
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) > 1
    assert len(table(tmp_path / "out")) == 6


async def test_so_many_pictures_are_in_the_works_and_no_more(folder, score):
    put(folder, **{f"p{number}": b"hold" + bytes([number]) for number in range(40)})
    scorer = FakeScorer()
    run = asyncio.create_task(score(scorer, concurrency=3))
    await scorer.until_asked(3)
    await settle()
    scorer.release.set()
    await run
    assert scorer.most_at_once == 3


async def test_a_slow_picture_holds_up_rows_and_not_the_others(folder, score):
    put(folder, a=b"hold", **{f"p{number}": bytes([number]) for number in range(20)})
    scorer = FakeScorer()
    run = asyncio.create_task(score(scorer, concurrency=2))
    await scorer.until_asked(21)
    scorer.release.set()
    assert (await run).pictures == 21


async def test_no_more_than_a_window_waits_for_a_slow_picture(folder, score):
    put(folder, a=b"hold", **{f"p{number:03}": bytes([number % 250, 1]) * number for number in range(1, 3 * WINDOW)})
    scorer, most = FakeScorer(), 2 + 2 * WINDOW
    run = asyncio.create_task(score(scorer, concurrency=2))
    await scorer.until_asked(most - 1)
    await settle()
    assert len(scorer.asked) <= most
    scorer.release.set()
    assert (await run).pictures == 3 * WINDOW


async def test_encoded_pictures_are_held_within_a_bound(folder, score, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_HELD_BYTES", 1000)
    put(folder, **{f"p{number}": b"hold" + bytes([number]) * 400 for number in range(6)})
    scorer = FakeScorer()
    run = asyncio.create_task(score(scorer, concurrency=6))
    await scorer.until_asked(2)
    await settle()
    assert len(scorer.asked) == 2
    scorer.release.set()
    assert (await run).pictures == 6


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
async def test_one_file_is_there_when_all_is_done_and_nothing_beside_it(folder, score, tmp_path, name):
    put(folder, a=b"1", b=b"end")
    out = tmp_path / name
    with pytest.raises(NotReadyError):
        await score(FakeScorer(ends_at=b"end"), out=out, concurrency=1)
    assert not out.exists()
    again = FakeScorer()
    await score(again, out=out)
    assert again.asked == [b"end"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", name]


async def test_what_failed_is_not_looked_for_in_one_finished_file(folder, score, tmp_path):
    put(folder, a=b"1")
    await score(FakeScorer(), out=tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="--retry-failed: expected a folder of shards"):
        await score(FakeScorer(), out=tmp_path / "x.csv", retry_failed=True)


async def test_a_long_way_of_pictures_that_have_rows_is_gone_in_pieces(folder, score, monkeypatch):
    monkeypatch.setattr(feed, "PIECE_SEEN", 3)
    put(folder, **{f"p{number:02}": bytes([number]) for number in range(20)})
    await score(FakeScorer())
    put(folder, z=b"new")
    later = FakeScorer()
    tally = await score(later)
    assert (later.asked, tally.passed_over) == ([b"new"], 20)


async def test_an_estimate_scores_a_sample_and_writes_nothing(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "SAMPLE", 5)
    put(folder, **{f"p{number}": bytes([number]) for number in range(20)})
    scorer, now = FakeScorer(), iter(range(10_000))
    finder = Finder(sources=[str(folder)])
    found = await estimate_run(finder, scorer.scoring(concurrency=1), kept=4, clock=lambda: float(next(now)))
    assert (found.pictures, found.kept, found.sample.pictures, found.faces) == (20, 4, 5, 16)
    assert len(set(scorer.asked)) == 5
    assert found.seconds == pytest.approx(found.sample.seconds / 5 * 16)
    assert found.low_s <= found.seconds <= found.high_s
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


async def test_another_seed_samples_other_pictures(folder, monkeypatch):
    monkeypatch.setattr(estimate, "SAMPLE", 5)
    put(folder, **{f"p{number}": bytes([number]) for number in range(50)})
    samples = []
    for seed in (1, 1, 2):
        scorer = FakeScorer()
        await estimate_run(Finder(sources=[str(folder)]), scorer.scoring(), seed=seed)
        samples.append(sorted(scorer.asked))
    assert samples[0] == samples[1] != samples[2]
