import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ferserve.serving.bulk.feed import Content, read_content
from ferserve.serving.bulk.sources import Finder, SourceCode, SourceError, files, folders
from ferserve.serving.errors import ConfigError

LIMIT = 10**6


def put(path: Path, data: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(*sources, **settings):
    """Path and bytes of every item, an error's code and message in the place of the bytes."""
    rows = []
    for item in Finder(sources=[str(source) for source in sources], **settings).items():
        content = read_content(item, LIMIT)
        rows.append((item.path, content.data if isinstance(content, Content) else (content.code, content.message)))
    return rows


def paths(*sources, **settings):
    return [path for path, _ in found(*sources, **settings)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_are_walked_in_order_for_pictures_and_named_files_are_taken_as_they_are(here):
    for name in ("b/2.PNG", "b/1.jpg", "a/3.webp", "a/notes.txt", "0.jpeg", "odd"):
        put(here / name)
    assert paths(".", "odd") == ["0.jpeg", "a/3.webp", "b/1.jpg", "b/2.PNG", "odd"]
    assert paths("./b") == ["b/1.jpg", "b/2.PNG"]


def test_a_folder_larger_than_a_piece_loses_nothing(here, monkeypatch):
    monkeypatch.setattr(folders, "PIECE", 20)
    names = {f"{number}.jpg" for number in range(90)}
    (here / "many").mkdir()
    for name in names:
        (here / "many" / name).touch()
    assert set(paths("many")) == {f"many/{name}" for name in names}
    assert Finder(sources=["many"]).count() == 90


def test_folders_that_the_run_writes_to_are_passed_over(here):
    put(here / "p/a.jpg")
    put(here / "p/crops/b.png")
    assert paths("p", skipped=frozenset({str(here / "p/crops")})) == ["p/a.jpg"]


def test_globs_find_files_and_folders(here):
    for name in ("p/1.jpg", "p/x.dat", "p/q/2.jpg", "p/q/r/3.jpg", "z/4.jpg"):
        put(here / name)
    assert paths("p/*.jpg") == ["p/1.jpg"]
    assert paths("p/*.dat") == ["p/x.dat"]
    assert sorted(paths("**/*.jpg")) == ["p/1.jpg", "p/q/2.jpg", "p/q/r/3.jpg", "z/4.jpg"]
    assert paths("[z]") == ["z/4.jpg"]
    assert sorted(paths("p/**")) == ["p/1.jpg", "p/q/2.jpg", "p/q/r/3.jpg"]
    assert paths(here / "p" / "?" / "2.jpg") == [f"{here}/p/q/2.jpg"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(here):
    put(here / "a[1].jpg", b"itself")
    assert found("a[1].jpg") == [("a[1].jpg", b"itself")]


@pytest.mark.parametrize("text", [b"a.jpg\r\n\nb\nabsent.jpg\n", b"a.jpg\0b\0absent.jpg"])
def test_a_list_names_files_and_folders(here, text):
    put(here / "a.jpg")
    put(here / "b/c.jpg")
    put(here / "list", text)
    assert found("@list") == [
        ("a.jpg", b"picture"),
        ("b/c.jpg", b"picture"),
        ("absent.jpg", (SourceCode.UNREADABLE, "the file cannot be read: No such file or directory")),
    ]


def test_a_source_that_does_not_exist_is_named(here):
    for source in ("absent", "@absent"):
        with pytest.raises(ConfigError, match="absent, which does not exist"):
            Finder(sources=[source]).check()
    (here / "empty").mkdir()
    with pytest.raises(ConfigError, match="found none"):
        Finder(sources=["empty"]).check()


def test_link_loops_end_and_links_to_files_are_followed(here):
    put(here / "p/a.jpg")
    (here / "p/round").symlink_to(here / "p")
    (here / "p/round.jpg").symlink_to(here / "p")
    (here / "p/self.jpg").symlink_to(here / "p/self.jpg")
    (here / "p/link.jpg").symlink_to(here / "p/a.jpg")
    expected = [
        ("p/a.jpg", b"picture"),
        ("p/link.jpg", b"picture"),
        ("p/self.jpg", (SourceCode.UNREADABLE, "the file cannot be read: Too many levels of symbolic links")),
    ]
    assert found("p") == expected
    assert found("**/*.jpg") == expected


def test_a_folder_that_cannot_be_listed_is_a_row_and_the_others_go_on(here, monkeypatch):
    put(here / "p/locked/a.jpg")
    put(here / "p/open/b.jpg")
    real = os.scandir

    def scandir(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list everything
    assert found("p") == [
        ("p/locked", (SourceCode.UNREADABLE, "the folder cannot be read: Permission denied")),
        ("p/open/b.jpg", b"picture"),
    ]


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(here):
    os.mkfifo(here / "pipe.jpg")
    assert found("pipe.jpg") == [
        ("pipe.jpg", (SourceCode.UNREADABLE, "expected a regular file, got a pipe, a device or a folder"))
    ]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        ((_, (code, _)),) = found("socket.jpg")
    assert code is SourceCode.UNREADABLE


def test_names_that_are_no_utf8_are_read_and_told_apart(here):
    for raw in (b"\xe9.jpg", b"\xea.jpg"):
        Path(os.fsdecode(bytes(here) + b"/" + raw)).write_bytes(raw)
    items = list(Finder(sources=["."]).items())
    assert [read_content(item, LIMIT).data for item in items] == [b"\xe9.jpg", b"\xea.jpg"]
    assert [item.path for item in items] == ["\ufffd.jpg", "\ufffd.jpg"]
    assert items[0].identity != items[1].identity


def test_one_path_is_one_identity_however_it_is_named(here):
    put(here / "p/a.jpg")
    items = list(Finder(sources=["p", "./p//a.jpg", str(here / "p/a.jpg")]).items())
    assert len({item.identity for item in items}) == 1


class Changing(io.FileIO):
    """A file that somebody writes to whenever it is read, so many times."""

    left = 0

    def read(self, size=-1):
        data = super().read(size)
        if Changing.left and data:
            Changing.left -= 1
            Path(self.name).write_bytes(data + b"more")
        return data


def test_a_picture_that_changes_while_it_is_read_is_read_again(here):
    Changing.left = 1
    path = put(here / "a.jpg", b"first")
    assert files.read_file(str(path), LIMIT, open_file=Changing) == b"firstmore"


def test_a_picture_that_keeps_changing_is_an_error(here):
    Changing.left = 1000
    with pytest.raises(SourceError, match="changed while it was read") as caught:
        files.read_file(str(put(here / "a.jpg")), LIMIT, open_file=Changing)
    assert caught.value.code is SourceCode.CHANGED


def test_no_more_of_a_file_is_read_than_asked_for(here):
    assert files.read_file(str(put(here / "a.jpg", b"x" * 1000)), 11) == b"x" * 11


def tar(path: Path, members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_a_tar_gives_its_pictures(here, name, mode):
    tar(here / name, [("d/1.jpg", b"one"), ("notes.txt", b"no"), ("2.png", b"two")], mode)
    assert found(name) == [(f"{name}!/d/1.jpg", b"one"), (f"{name}!/2.png", b"two")]


def test_links_in_a_tar_are_passed_over(here):
    with tarfile.open(here / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert found("a.tar") == []


def test_a_tar_is_read_without_keeping_its_members(here, monkeypatch):
    tar(here / "a.tar", [(f"{number}.jpg", b"x") for number in range(50)])
    kept = []
    real = tarfile.TarFile.next

    def following(archive):
        kept.append(len(archive.members))
        return real(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", following)
    assert len(found("a.tar")) == 50
    assert max(kept) <= 1


def test_a_damaged_archive_gives_what_it_can_and_a_row(here):
    whole = tar(here / "a.tar.gz", [(f"{n}.jpg", os.urandom(5000)) for n in range(9)], "w:gz").read_bytes()
    put(here / "cut.tar.gz", whole[: len(whole) // 2])
    rows = found("cut.tar.gz")
    assert [path for path, _ in rows[:2]] == ["cut.tar.gz!/0.jpg", "cut.tar.gz!/1.jpg"]
    path, (code, message) = rows[-1]
    assert (path, code) == ("cut.tar.gz", SourceCode.UNREADABLE)
    assert "expected a whole tar or zip archive" in message
    put(here / "no.zip", b"no archive")
    ((path, (code, _)),) = found("no.zip")
    assert (path, code) == ("no.zip", SourceCode.UNREADABLE)


def test_a_zip_gives_its_pictures_and_a_row_for_each_that_is_damaged(here):
    with zipfile.ZipFile(here / "a.zip", "w") as archive:
        archive.writestr("1.jpg", b"one")
        archive.writestr("d/2.jpg", b"two" * 100)
        archive.writestr("notes.txt", b"no")
    data = (here / "a.zip").read_bytes()
    put(here / "b.zip", data.replace(b"twotwo", b"twoTWO", 1))
    assert found("a.zip") == [("a.zip!/1.jpg", b"one"), ("a.zip!/d/2.jpg", b"two" * 100)]
    assert found("b.zip")[1] == (
        "b.zip!/d/2.jpg", (SourceCode.UNREADABLE, "expected a whole member, got a damaged one")
    )  # fmt: skip


def test_a_member_that_is_larger_than_allowed_is_not_inflated_further(here):
    with zipfile.ZipFile(here / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(10 * LIMIT))
    ((_, data),) = found("bomb.zip")
    assert len(data) == LIMIT + 1


def test_what_an_archive_holds_is_counted_from_its_table(here):
    tar(here / "a.tar", [("1.jpg", b"1"), ("2.jpg", b"2")])
    tar(here / "a.tgz", [("1.jpg", b"1")], "w:gz")
    assert Finder(sources=["a.tar"]).count() == 2
    assert Finder(sources=["a.tar", "a.tgz"]).count() is None


@pytest.fixture
def video(here):
    """Two seconds at ten frames a second, 64 x 48, each frame a grey of its own."""
    path = here / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(20):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("rate", "times"), [(1.0, [0.0, 1.0]), (2.0, [0.0, 0.5, 1.0, 1.5]), (4.0, [0.0, 0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8])]
)
def test_a_video_gives_the_first_frame_at_or_after_each_tick(video, rate, times):
    items = Finder(sources=[str(video)], frames_per_s=rate).items()
    frames = []
    for item in items:
        pixels = cv2.imdecode(np.frombuffer(item.read(LIMIT), np.uint8), cv2.IMREAD_GRAYSCALE)
        frames.append((item.time_s, round(float(pixels.mean()) / 10)))
        assert item.path == f"{video}#t={item.time_s:.3f}"
    assert [time_s for time_s, _ in frames] == pytest.approx(times)
    assert [number for _, number in frames] == [round(time_s * 10) for time_s in times]


def test_frames_that_would_be_too_long_as_they_are_become_png(video):
    (first, *_) = Finder(sources=[str(video)]).items()
    assert first.time_s == 0.0
    items = iter(Finder(sources=[str(video)]).items())
    assert next(items).read(64 * 48 * 3).startswith(b"\x89PNG")
    assert next(items).read(LIMIT).startswith(b"BM")


def test_a_video_that_cannot_be_read_is_a_row(here):
    put(here / "broken.mp4", b"no video at all")
    assert found("broken.mp4") == [("broken.mp4", (SourceCode.UNREADABLE, "expected a video that OpenCV reads"))]


def test_a_video_is_counted_from_what_its_container_says(video):
    assert Finder(sources=[str(video)], frames_per_s=2.0).count() == 4
