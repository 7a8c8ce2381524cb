"""Pictures of many frames; the first one is what is analysed, however many or broken the others are."""

import io
from random import Random

from PIL import Image
from tests.damaged.expected import Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import face


def animated(rng: Random, index: int) -> Damaged:
    """A GIF, a WebP, an APNG, a TIFF of many pages, a JPEG with further pictures; some are broken later on."""
    kind, extra = (("GIF", {}), ("WEBP", {}), ("PNG", {}), ("TIFF", {}), ("MPO", {}))[index % 5]
    frames = rng.choice((2, 30, 300))
    form = ("whole", "cut off", "noise at the end")[index // 5 % 3]
    cut = rng.uniform(0.6, 0.95)
    seed = rng.random()

    def make() -> Picture:
        data = _frames(kind, frames, **extra)
        kept = data[: int(len(data) * cut)]
        tail = Random(seed).randbytes(len(data) - len(kept))
        return Picture(data={"whole": data, "cut off": kept, "noise at the end": kept + tail}[form])

    return Damaged(
        kind="animated",
        index=index,
        what=f"{kind} of {frames} frames, {form}",
        make=make,
        expected=Expected(
            reasons=frozenset() if form == "whole" else frozenset({"INVALID_IMAGE"}),
            decodes=Decodes.ALWAYS if form == "whole" else Decodes.PERHAPS,
        ),
    )


def _frames(kind: str, count: int, **options: object) -> bytes:
    """Frames that differ, for encoders leave out what is the same again."""
    turned = [face(48).rotate(7 * turn) for turn in range(count)]
    buffer = io.BytesIO()
    first, *others = (
        turned if kind != "GIF" else [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in turned]
    )
    first.save(buffer, kind, save_all=True, append_images=others, **options)
    return buffer.getvalue()
