"""Whatever the raw files hold, the parsers give a result or one line; what fuzzing found stays as examples."""

import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_ntu import body_points, skeleton_text
from raw_nw_ucla import joints_at
from raw_nw_ucla import skeleton_text as nw_skeleton

from data_prep import folder, media, nw_ucla, uwa3dii
from data_prep.convert import pair
from data_prep.ntu import names, skeleton
from hallujax.errors import DataError, HallujaxError

FUZZ = settings(max_examples=150, deadline=None)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


def mutated(text: str) -> st.SearchStrategy[str]:
    """`text` with a piece of it replaced by anything, or cut off."""
    piece = st.one_of(
        st.sampled_from(
            ["", "nan", "inf", "-inf", "1e999", "-1", "0", "99999999999999999999", ",", "\n", "\r", " ", "\0"]
        ),
        st.text(max_size=8),
    )
    ends = st.tuples(st.integers(0, len(text)), st.integers(0, 40))
    return st.builds(lambda ends, new: text[: ends[0]] + new + text[ends[0] + ends[1] :], ends, piece)


def one_line(error: HallujaxError) -> bool:
    return bool(str(error).strip()) and len(str(error).splitlines()) == 1


NW = nw_skeleton(np.concatenate([joints_at(1), joints_at(2)]).round(2))
NTU = skeleton_text([[("7", body_points().round(2))], [], [("7", body_points().round(2))] * 1])


@FUZZ
@given(st.one_of(mutated(NW), st.text(max_size=60)))
@example("1\n" + "1,2,3,4\n" * 19 + "1,2,3\n")
@example("1\n" + "1_0,2,3,4\n" * 20)
def test_nw_ucla_skeletons(place, text):
    place.write_bytes(text.encode())
    try:
        joints = nw_ucla.skeleton(place)
    except DataError as error:
        assert one_line(error)
    else:
        assert joints.dtype == np.float32 and joints.shape[1:] == (20, 4) and np.isfinite(joints).all()


@FUZZ
@given(mutated(NTU))
def test_ntu_skeletons(place, text):
    place.write_bytes(text.encode())
    try:
        length, bodies = skeleton.read(place)
    except DataError as error:
        assert one_line(error)
    else:
        for body in bodies:
            assert np.isfinite(body.joints).all() and (np.diff(body.frames) > 0).all() and body.frames.max() < length


@FUZZ
@given(st.one_of(NAMES, st.from_regex(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}[a-z_.]{0,8}", fullmatch=True)))
@example("S001C001P001R001A00\u0661")  # a digit, but not one of a name's
def test_ntu_names(name):
    sample = names.parse(name)
    if sample is not None:
        assert name.startswith("S{:03}C{:03}P{:03}R{:03}A{:03}".format(*sample))
        assert isinstance(names.problem(sample), str)


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, 10**9 - 1), st.sampled_from(sorted(nw_ucla._FILES))), max_size=12, unique=True),
    st.lists(NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200), max_size=4),
)
def test_nw_ucla_frames(wanted, others):
    """Frames come back in numeric order, and no other name is taken for one."""
    with tempfile.TemporaryDirectory() as place:
        for number, kind in wanted:
            pathlib.Path(place, f"frame_{number}_tc_{number % 977}_{nw_ucla._FILES[kind]}").touch()
        for name in others:
            pathlib.Path(place, name).touch()
        listed = nw_ucla._listed(pathlib.Path(place))
    assert {kind: [number for number, _ in files] for kind, files in listed.items()} == {
        kind: sorted(number for number, its in wanted if its == kind) for kind in nw_ucla._FILES
    }


@FUZZ
@given(st.lists(NAMES, max_size=8, unique=True))
@example(["1.png", "01.png"])
@example(["²", "1.png"])
def test_numbered_files_lose_none(found):
    numbered = media.numbered(found)
    assert sorted(numbered.values()) == sorted(found) and list(numbered) == sorted(numbered)


@FUZZ
@given(
    st.dictionaries(st.sampled_from(["rgb", "depth", "joints"]), st.sets(st.integers(0, 99), max_size=6), min_size=1)
)
def test_sequences_find_one_partner_each(found):
    """Every path is used once, and what is complete has all modalities."""
    paths = {name: {number: f"{name}{number}" for number in numbers} for name, numbers in found.items()}
    partners = uwa3dii._partners((1, 2, 3), paths)
    used = sorted(path for _, sources, _ in partners for path in sources.values())
    assert used == sorted(path for group in paths.values() for path in group.values())
    for _, sources, reason in partners:
        assert (set(sources) == set(found)) == (reason == "")
    complete = [sources for _, sources, reason in partners if not reason]
    assert len(complete) >= len(set.intersection(*found.values()))


@FUZZ
@given(st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(-5, 50)).map(sorted), min_size=1), st.floats(0, 1))
def test_pairing(numbers, share):
    try:
        common, repaired = pair(numbers, share)
    except DataError as error:
        assert one_line(error)
    else:
        assert common and all(set(common) <= set(found) for found in numbers.values()) and common == sorted(common)
        assert (repaired == "") == all(len(found) == len(common) for found in numbers.values())


CSV = "clip,label,subject,camera,split,rgb\na,walk,anna,1,train,videos/a\nb,run,bo,2,test,videos/b\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("csv")
    for name in "ab":
        (root / "videos" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "videos" / name / "1.png")
    return root


@FUZZ
@given(st.one_of(mutated(CSV), st.text(max_size=80).map(lambda text: CSV + text)))
@example(CSV.replace("videos/a", "/etc"))
@example(CSV.replace("videos/a", "videos/a\0"))
@example(CSV.replace("videos/a", "x" * 5000))
@example(CSV.replace("walk", "\u2028"))
@example(CSV.replace("train", '"no\nsplit"'))
def test_clips_csv(tree, text):
    (tree / "clips.csv").write_bytes(text.encode())
    try:
        found = folder.scan(tree, size=16)
    except HallujaxError as error:
        assert one_line(error)
    else:
        ids = [clip.id for clip in found.clips]
        assert len(set(ids)) == len(ids)
        for clip in found.clips:
            assert found.classes[clip.label] and not clip.id.startswith("/")
            assert all((tree / path).resolve().is_relative_to(tree.resolve()) for path in clip.sources.values())
        assert all("\n" not in reason for _, reason in found.refused)


def encoded(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place, "x." + kind)
        values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 9
        Image.fromarray(values if kind == "png" else values.astype(np.uint8)).save(path)
        return path.read_bytes()


PICTURES = [encoded("png"), encoded("jpg"), encoded("tif"), encoded("bmp")]


@FUZZ
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of tags it makes no sense of
@given(
    st.sampled_from(PICTURES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
def test_damaged_pictures(place, data, changes, length):
    """Any bytes are a picture or one line; nothing else is raised, whatever Pillow finds wrong."""
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    place.write_bytes(bytes(damaged[: max(length, 1)]))
    for read in (media.picture, media.deep_picture):
        try:
            found = read(place)
        except DataError as error:
            assert one_line(error)
        else:
            assert found.dtype in (np.uint8, np.uint16)
    assert media.is_deep(place) in (True, False)
