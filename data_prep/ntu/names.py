"""Sample names, `SsssCcccPpppRrrrAaaa`: setup, camera, performer, repetition, action."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Who was recorded in which setup: each with three cameras, twice, every action of the set (1 to 60 in setups 1 to 17,
# 61 to 120 after them). Read off the published lists of samples.
PERFORMERS = {
    1: (1, 2, 3, 4, 5, 6, 7, 8),
    2: (3, 7, 8, 9, 10, 11, 12, 13, 14),
    3: (1, 2, 7, 8, 15, 16, 17, 18, 19),
    4: (3, 7, 8, 20),
    5: (4, 10, 13, 15, 16, 17, 18, 21),
    6: (1, 7, 8, 15, 16, 17, 19, 22, 23, 24),
    7: (1, 7, 8, 15, 16, 17, 18, 19, 25, 26, 27, 28),
    8: (1, 7, 8, 15, 19, 25, 29, 30, 31, 32, 33, 34, 35, 36),
    9: (7, 8, 15, 16, 17, 19, 25),
    10: (7, 8, 13, 15, 16, 17, 18, 19, 21, 25),
    11: (1, 2, 7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 38),
    12: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    13: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    14: (7, 8, 15, 17, 19, 25, 27, 37, 39),
    15: (7, 8, 15, 16, 17, 19, 25, 37),
    16: (7, 8, 19, 21, 25, 39, 40),
    17: (3, 7, 8, 9, 15, 16, 17, 20),
    18: (8, 41, 42, 43, 44, 45),
    19: (8, 41, 42, 46, 47, 48, 49, 50, 51),
    20: (8, 41, 43, 44, 52, 53, 54),
    21: (55, 56, 57, 58, 59, 60),
    22: (61, 62, 63, 64, 65, 66, 67),
    23: (55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68),
    24: (57, 60, 61, 62, 63, 64, 67),
    25: (55, 56, 58, 59, 65, 66, 68),
    26: (8, 41, 44, 49, 50, 51, 69, 70, 71, 72, 74, 75, 76, 77),
    27: (6, 8, 11, 41, 43, 44, 78, 79, 80, 81, 82, 83, 84, 85, 86),
    28: (8, 41, 42, 43, 46, 48, 70, 73, 87),
    29: (6, 8, 41, 43, 44, 48, 49, 51, 67, 74, 75, 80, 88, 89, 90),
    30: (8, 11, 41, 43, 44, 48, 67, 75, 76, 81, 85, 88, 91, 92, 93, 94, 95, 96),
    31: (6, 8, 41, 42, 43, 44, 51, 67, 82, 85, 96, 97, 98, 99, 100, 101),
    32: (8, 41, 43, 44, 67, 102, 103, 104, 105, 106),
}
CAMERAS, REPETITIONS = (1, 2, 3), (1, 2)
OLD_SETUPS, OLD_ACTIONS = 17, 60  # of the first set; the 120 goes on to setup 32 and action 120

JOINTS = (
    "spine base, spine middle, neck, head, left shoulder, left elbow, left wrist, left hand, right shoulder, "
    "right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip, right knee, "
    "right ankle, right foot, spine at the shoulders, left hand tip, left thumb, right hand tip, right thumb"
).split(", ")


class Sample(NamedTuple):
    """What a name says; all count from 1."""

    setup: int
    camera: int
    performer: int
    repetition: int
    action: int


def parse(name: str) -> Sample | None:
    """The sample of a file or folder name that starts with one, else None."""
    found = re.match(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(?![0-9A-Za-z])", name, re.ASCII)
    return Sample(*map(int, found.groups())) if found else None


def actions(setup: int) -> range:
    """The actions that were recorded in a setup."""
    return range(1, OLD_ACTIONS + 1) if setup <= OLD_SETUPS else range(OLD_ACTIONS + 1, 121)


def samples(setups: int) -> Iterator[Sample]:
    """All samples of setups 1 to `setups`: 56,880 of 17, 114,480 of 32."""
    for setup in range(1, setups + 1):
        for camera in CAMERAS:
            for performer in PERFORMERS[setup]:
                for repetition in REPETITIONS:
                    for action in actions(setup):
                        yield Sample(setup, camera, performer, repetition, action)


def problem(sample: Sample) -> str:
    """Why no such sample can exist, or nothing."""
    if sample.setup not in PERFORMERS:
        return f"setup {sample.setup} is outside 1 to {len(PERFORMERS)}"
    if sample.action not in actions(sample.setup):
        known = actions(sample.setup)
        return f"action {sample.action} is outside {known[0]} to {known[-1]}, those of setup {sample.setup}"
    if sample.camera not in CAMERAS or sample.repetition not in REPETITIONS:
        return f"camera {sample.camera}, repetition {sample.repetition}: there are three cameras and two repetitions"
    return ""
