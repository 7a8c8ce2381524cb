"""Made-up pictures in the owners' layouts, written by script: a few noise faces, no one's face."""

import csv
from pathlib import Path

import cv2
import numpy as np

from ferserve.training.data.celeba import EXPRESSIVE

OTHER_ATTRIBUTES = [f"Other_{number}" for number in range(28)]


def write_picture(path: Path, *, seed: int, side_px: int = 24, grey: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side_px, side_px) if grey else (side_px, side_px, 3)
    done = cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    assert done


def write_class_folders(folder: Path, names: list[str]) -> None:
    """Two pictures a class."""
    for seed, name in enumerate(names):
        for number in (1, 2):
            write_picture(folder / name / f"angry_manager_{10 * seed + number}.jpg", seed=100 * seed + number)


def write_jaffe(folder: Path, people: tuple[str, ...] = ("KA", "KL", "YM")) -> None:
    """One picture a person and expression."""
    number = 0
    for person in people:
        for code in ("AN", "DI", "FE", "HA", "NE", "SA", "SU"):
            number += 1
            write_picture(folder / f"{person}.{code}1.{number}.tiff", seed=number)


def write_ck48(folder: Path) -> None:
    """Three frames of each of six sequences; S010 appears in two classes."""
    for seed, (subject, sequence, name) in enumerate(
        [
            ("S005", "001", "disgust"),
            ("S010", "002", "surprise"),
            ("S010", "004", "angry"),
            ("S011", "006", "happy"),
            ("S138", "008", "contempt"),
            ("S504", "002", "fear"),
        ]
    ):
        for frame in (9, 10, 11):
            write_picture(folder / name / f"{subject}_{sequence}_{frame:08d}.png", seed=10 * seed + frame)


def write_ck_plus(folder: Path) -> None:
    """Three labelled sequences of six frames, one unlabelled with an empty folder, one without any."""
    for number, (subject, sequence, code) in enumerate(
        [("S005", "001", 3), ("S010", "002", 7), ("S138", "008", 2), ("S010", "003", None), ("S011", "001", None)]
    ):
        for frame in range(1, 7):
            name = f"{subject}_{sequence}_{frame:08d}.png"
            write_picture(folder / "cohn-kanade-images" / subject / sequence / name, seed=10 * number + frame)
        (folder / "cohn-kanade-images" / subject / sequence / ".DS_Store").touch()
        labels = folder / "Emotion" / subject / sequence
        if subject != "S011":
            labels.mkdir(parents=True)
        if code is not None:
            (labels / f"{subject}_{sequence}_{6:08d}_emotion.txt").write_text(f"   {code:.7e}\n")


def write_sfew(folder: Path, parts: tuple[str, ...] = ("Train", "Val")) -> None:
    for seed, part in enumerate(parts):
        for name in ("Angry", "Neutral"):
            write_picture(folder / part / name / "Airheads_000519240_00000005.png", seed=seed, grey=False)
    (folder / "Test").mkdir(parents=True)


def write_celeba(folder: Path, *, whole: bool = True) -> None:
    """Four pictures; `whole` adds the owner's partition and identities."""
    names = [f"{number:06d}.jpg" for number in range(1, 5)]
    header = [*OTHER_ATTRIBUTES, *EXPRESSIVE]
    rows = []
    for number, name in enumerate(names):
        write_picture(folder / "Img" / "img_align_celeba" / name, seed=number, grey=False)
        values = [-1] * len(OTHER_ATTRIBUTES) + [1 if number == column % 4 else -1 for column in range(len(EXPRESSIVE))]
        rows.append(f"{name} {' '.join(f'{value:2d}' for value in values)}")
    (folder / "Anno").mkdir()
    (folder / "Anno" / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(header), *rows]) + "\n")
    if whole:
        (folder / "Eval").mkdir()
        parts = "\n".join(f"{name} {part}" for name, part in zip(names, (0, 0, 1, 2), strict=True))
        (folder / "Eval" / "list_eval_partition.txt").write_text(parts + "\n")
        people = "\n".join(f"{name} {person}" for name, person in zip(names, (2880, 2880, 7, 9), strict=True))
        (folder / "Anno" / "identity_CelebA.txt").write_text(people + "\n")


def write_lfw(folder: Path) -> None:
    """Three people; official pairs in two folds of one matched and one mismatched pair."""
    for seed, (name, count) in enumerate([("Abel_Pacheco", 4), ("Jason_Kidd", 2), ("Zorica_Radovic", 1)]):
        for number in range(1, count + 1):
            path = folder / name / f"{name}_{number:04d}.jpg"
            write_picture(path, seed=10 * seed + number, grey=False)
    lines = ["2\t1", "Abel_Pacheco\t1\t4", "Abel_Pacheco\t2\tJason_Kidd\t1"]
    lines += ["Jason_Kidd\t1\t2", "Jason_Kidd\t2\tZorica_Radovic\t1"]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")


def write_people(folder: Path, people: dict[str, int], pattern: str = "{:03d}.jpg") -> None:
    for seed, (name, count) in enumerate(people.items()):
        for number in range(1, count + 1):
            write_picture(folder / name / pattern.format(number), seed=10 * seed + number, grey=False)


VOTES = (
    [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],  # happy
    [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # tie
    [1, 0, 0, 0, 0, 0, 0, 9, 0, 0],  # contempt
    [0, 0, 0, 0, 0, 1, 9, 0, 0, 0],  # fear
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 9],  # not a face
    [0] * 10,
)


def write_ferplus(folder: Path, *, boxes: bool = True) -> None:
    """All of `VOTES` in Train, the first in Valid, as FERPlus's own script leaves them."""
    for part, votes in (("FER2013Train", VOTES), ("FER2013Valid", VOTES[:1])):
        rows = []
        for number, counts in enumerate(votes):
            write_picture(folder / part / f"fer{number:07d}.png", seed=number, side_px=48)
            rows.append([f"fer{number:07d}.png", *(["(0, 0, 48, 48)"] if boxes else []), *counts])
        with (folder / part / "label.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def write_fer2013(
    folder: Path, images: np.ndarray, labels: list[int], usages: list[str], *, votes: list[list[int]] | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for image, label, usage in zip(images, labels, usages, strict=True):
            writer.writerow([label, " ".join(map(str, image.ravel().tolist())), usage])
    if votes is not None:
        with (folder / "fer2013new.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Usage", "Image name", *"abcdefghij"])
            writer.writerows([usage, "x", *counts] for usage, counts in zip(usages, votes, strict=True))
