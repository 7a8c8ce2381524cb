"""From a folder of web pictures to aligned crops (S2, section 4.1): a row with a reason for everything left out.

S2 drops what Viola and Jones's detector finds no face in; here the detector is ours (or any other), every face of a
picture is a candidate, copies are dropped (files byte for byte, faces by their looks: docs/adr/0034), and faces that
look like a test set's as well, so that no figure measured on that set later is of faces that were trained on.

Pictures are read one at a time; a shard of `PICTURES` is written whole or not at all. What is held in memory grows by
64 to 96 bytes a picture, so that ten million take about a gigabyte.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError
from ferserve.faces.photos import PreparedFace, cut_faces, decoded_side, search_side_px
from ferserve.training.active.duplicates import LooksIndex
from ferserve.training.active.files import read_arrays, read_json, write_json
from ferserve.training.active.open_shard import OpenShard, grey_of
from ferserve.training.active.pool import BUILD, SHARDS, WEB_FILE, committed_shards, face_id, read_rows
from ferserve.training.active.seen import Seen, key_of
from ferserve.training.active.walk import walk_pictures
from ferserve.training.active.web_settings import BuildReport, Reason, WebSettings
from ferserve.training.data.catalog import Source
from ferserve.training.data.errors import DataError
from ferserve.training.data.overlap import looks, make_prints

PICTURES: Final = 512
"""Of a shard: what a stop costs at most, some ten seconds."""
KIND: Final = "active-web"
_THUMBS_KEPT: Final = 8


class WebBuilder:
    """Looks at pictures and writes shards; made for a folder with shards it goes on from them.

    Args:
        out: the campaign's folder.
        audited: what `settings.audited` names.
    Raises:
        DataError: the folder was begun with other settings, or an audited set is malformed.
    """

    def __init__(self, settings: WebSettings, *, out: Path, detector: Detector, audited: Sequence[Source] = ()) -> None:
        self.settings, self.out, self.detector = settings, out, detector
        self.report = BuildReport()
        self._limits = DecodeLimits()
        self._names, self._contents = Seen(), Seen()
        self._starts: list[int] = []
        self._looks = LooksIndex(self._thumb)
        self._shard_thumbs = lru_cache(_THUMBS_KEPT)(self._read_thumbs)
        self._open = OpenShard()
        self._begin()
        self._audited_names: list[str] = []
        self._audited = self._read_audited(audited)

    def build(
        self, *, on_picture: Callable[[], None] = lambda: None, should_stop: Callable[[], bool] = lambda: False
    ) -> BuildReport:
        """Look at every picture that no shard holds yet, until `should_stop`; what was looked at is committed.

        Raises:
            DataError: the folder holds no picture, or no face at all.
            StorageError: the disk takes no more; the shards stand.
        """
        pictures = (name for name in self._walk() if self._names.find(key_of(name.encode())) is None)
        while not should_stop() and (piece := self._first(pictures)):
            for name in piece:
                self._look_at(name)
                on_picture()
                if should_stop():
                    break
            self._commit()
        self.report.is_finished = not should_stop()
        if self.report.is_finished:
            self._check_faces()
            self._write_web(is_finished=True)
        return self.report

    def _walk(self) -> Iterator[str]:
        return walk_pictures(Path(self.settings.source), skipped=self.out)

    @staticmethod
    def _first(pictures: Iterator[str]) -> list[str]:
        return list(islice(pictures, PICTURES))

    def _begin(self) -> None:
        """Take up what is there."""
        path = self.out / WEB_FILE
        if path.is_file():
            former = read_json(path, made_by=BUILD).get("settings")
            own = self.settings.to_dict()
            if former != own:
                changed = [name for name in own if not isinstance(former, dict) or former.get(name) != own[name]]
                raise DataError(
                    f"{path}: expected a build with the same {', '.join(changed)}; choose another --out, or give what "
                    "is written there"
                )
        else:
            self._write_web(is_finished=False)
        for shard in committed_shards(self.out):
            arrays = read_arrays(shard.arrays)
            numbers = shard.number * PICTURES + np.arange(len(arrays["names"]), dtype=np.int64)
            self._names.extend(arrays["names"], numbers)
            known = arrays["contents"] != 0
            self._contents.extend(arrays["contents"][known], numbers[known])
            self._starts.append(len(self._looks))
            self._looks.add(arrays["bits"])
            self._count(read_rows(shard.rows), pictures=len(numbers))

    def _write_web(self, *, is_finished: bool) -> None:
        report = self.report
        write_json(
            self.out / WEB_FILE,
            {
                "kind": KIND,
                "settings": self.settings.to_dict(),
                "is_finished": is_finished,
                "pictures": report.pictures,
                "kept": report.kept,
                "dropped": dict(report.dropped),
            },
        )

    def _read_audited(self, sources: Sequence[Source]) -> LooksIndex:
        thumbs: list[NDArray[np.uint8]] = []
        index = LooksIndex(lambda row: thumbs[row])
        for source in sources:
            pictures = source.read()
            prints = make_prints(pictures)
            thumbs.extend(prints.thumbs_NTT)
            self._audited_names += [f"{source.title} {name}" for name in pictures.names]
            index.add(prints.bits_NW)
        return index

    def _look_at(self, name: str) -> None:
        shard, opened = len(self._starts), self._open
        number = shard * PICTURES + len(opened.pictures)
        opened.pictures.append(name)
        opened.contents.append(0)
        path = Path(self.settings.source) / name
        try:
            data = _read(path, self._limits.max_image_bytes)
            key = key_of(data)
            twin = self._contents.find(key)
            if twin is not None:
                opened.rows.append(_dropped(name, Reason.IDENTICAL, of=self._picture(twin)))
                return
            self._contents.add(key, number)
            opened.contents[-1] = key
            faces = self._faces(data)
        except FerserveError as error:
            opened.rows.append(_dropped(name, Reason.UNREADABLE, message=error.message))
            return
        if not faces:
            opened.rows.append(_dropped(name, Reason.NO_FACE))
        for face_number, face in enumerate(faces):
            opened.rows.append(self._judge(name, face_number, face))

    def _faces(self, data: bytes) -> tuple[PreparedFace, ...]:
        side = decoded_side(self.detector, detection_size_px=None, exact=False)
        decoded = decode(data, self._limits, min_side_px=side)
        size_px = search_side_px(self.detector, decoded, detection_size_px=None, exact=False)
        return cut_faces(decoded, self.detector.detect(decoded.pixels, size_px=size_px), self.settings.preprocess)

    def _judge(self, name: str, number: int, face: PreparedFace) -> dict[str, Any]:
        """The row of one face, which is kept unless there is a reason against it."""
        if face.quality.size_px < self.settings.min_face_px:
            return _dropped(name, Reason.SMALL, face=number, size_px=round(face.quality.size_px, 1))
        bits_W, thumb_TT = looks(grey_of(face.crop))
        match = self._audited.find(bits_W, thumb_TT)
        if match is not None:
            return _dropped(name, Reason.AUDITED, face=number, of=self._audited_names[match.row])
        match = self._looks.find(bits_W, thumb_TT)
        if match is not None:
            twin = self._face(match.row)
            return _dropped(
                name, Reason.SIMILAR, face=number, of=twin, distance=match.distance, mirrored=match.mirrored
            )
        return self._keep(name, number, face, bits_W, thumb_TT)

    def _keep(
        self, name: str, number: int, face: PreparedFace, bits_W: NDArray[np.uint64], thumb_TT: NDArray[np.uint8]
    ) -> dict[str, Any]:
        row = self._open.keep(face, bits_W, thumb_TT)
        self._looks.add(bits_W[None])
        box = face.detection.box
        return {
            "picture": name,
            "face": number,
            "status": "kept",
            "id": face_id(len(self._starts), row),
            "box": [round(value, 1) for value in (box.x0, box.y0, box.x1, box.y1)],
            "detection_score": round(face.detection.score, 4),
            "issues": [issue.value for issue in face.quality.issues],
        }

    def _commit(self) -> None:
        """Write the open shard: its arrays, then its rows, which make it count."""
        opened, count = self._open, len(self._open.crops)
        if not opened.pictures:
            return
        opened.write(self.out / SHARDS / f"{len(self._starts):06d}", self.settings.preprocess)
        names = opened.name_keys()
        self._names.extend(names, len(self._starts) * PICTURES + np.arange(len(names), dtype=np.int64))
        self._starts.append(len(self._looks) - count)
        self._count(opened.rows, pictures=len(names))
        self._open = OpenShard()

    def _count(self, rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]], *, pictures: int) -> None:
        self.report.pictures += pictures
        for row in rows:
            if row["status"] == "kept":
                self.report.kept += 1
            else:
                self.report.dropped[row["reason"]] += 1

    def _place(self, row: int) -> tuple[int, int]:
        """Shard and row in it of a face by its number over all."""
        if row >= len(self._looks) - len(self._open.crops):
            return len(self._starts), row - (len(self._looks) - len(self._open.crops))
        shard = bisect_right(self._starts, row) - 1
        return shard, row - self._starts[shard]

    def _face(self, row: int) -> str:
        return face_id(*self._place(row))

    def _thumb(self, row: int) -> NDArray[np.uint8]:
        shard, place = self._place(row)
        thumbs_NTT = self._open.thumbs if shard == len(self._starts) else self._shard_thumbs(shard)
        return thumbs_NTT[place]

    def _read_thumbs(self, shard: int) -> NDArray[np.uint8]:
        thumbs: NDArray[np.uint8] = read_arrays(self.out / SHARDS / f"{shard:06d}.npz")["thumbs"]
        return thumbs

    def _picture(self, number: int) -> str:
        shard, place = divmod(number, PICTURES)
        if shard == len(self._starts):
            return self._open.pictures[place]
        rows = read_rows(self.out / SHARDS / f"{shard:06d}.jsonl")
        return next(islice(dict.fromkeys(str(row["picture"]) for row in rows), place, None))

    def _check_faces(self) -> None:
        source, report = self.settings.source, self.report
        if not report.pictures:
            raise DataError(f"{source}: expected at least one picture (JPEG, PNG, WebP, BMP, TIFF or GIF), found none")
        if not report.kept:
            why = ", ".join(f"{reason} {count}" for reason, count in sorted(report.dropped.items()))
            raise DataError(
                f"{source}: expected at least one face to keep, found none in {report.pictures} pictures ({why}); "
                f"{self.out / SHARDS} has a row for each"
            )


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)  # one more than allowed is enough to be refused
    except OSError as error:
        raise DataError(f"expected a file that can be read: {error.strerror}") from error


def _dropped(picture: str, reason: Reason, **more: Any) -> dict[str, Any]:
    return {"picture": picture, "status": "dropped", "reason": reason.value, **more}
