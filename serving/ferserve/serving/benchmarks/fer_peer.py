"""What `fer` does with photos, in an interpreter of its own that has it: `against` runs this file, nobody imports it.

Arguments: photos. For each line on standard input, a number of seconds, it analyses one photo after the other for so
long and prints one line of JSON: the milliseconds of each, decoding included, and the faces found in all.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from fer.fer import FER


def main() -> None:
    """Analyse until standard input ends."""
    photos = [np.frombuffer(Path(name).read_bytes(), dtype=np.uint8) for name in sys.argv[1:]]
    detector = FER()
    for photo in photos:  # what it loads at its first call is no part of the measurement
        detector.detect_emotions(cv2.imdecode(photo, cv2.IMREAD_COLOR))
    say({"ready": True})
    for line in sys.stdin:
        say(turn(detector, photos, float(line)))


def turn(detector: FER, photos: list[np.ndarray], seconds: float) -> dict[str, object]:
    """One photo after the other; at least each once."""
    times_ms: list[float] = []
    faces = 0
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < seconds or len(times_ms) < len(photos):
        photo = photos[len(times_ms) % len(photos)]
        asked_s = time.perf_counter()
        found = detector.detect_emotions(cv2.imdecode(photo, cv2.IMREAD_COLOR))
        times_ms.append((time.perf_counter() - asked_s) * 1000)
        faces += len(found)
    return {"times_ms": times_ms, "faces": faces, "took_s": time.perf_counter() - began_s}


def say(message: dict[str, object]) -> None:
    """Print one line, which the other side waits for."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
