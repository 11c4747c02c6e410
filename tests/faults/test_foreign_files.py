"""R7: files that others wrote. Some formats hold no checksum: of these another pixel or weight cannot be told, and is
counted; but no damage may be a crash, a hang, or a clip that is short without a word."""

import functools
import hashlib
import pathlib

import numpy as np
import pytest
from harm import tally
from raw_files import moving_square, write_pictures, write_video
from raw_ntu import body_points, skeleton_text
from resnet_tensors import STAGE_SIZES, slim, torchvision, values
from safetensors.numpy import save_file
from tensorflow_checkpoints import v1, v2
from test_corruption import both, plain

from data_prep import folder as own
from data_prep import uwa3dii
from data_prep.ntu import skeleton
from hallujax.models import pretrained
from hallujax.models.pretrained import imported


def clips(root: pathlib.Path):
    """Every clip of a tree of one's own, as a conversion reads it; a refusal and a repair are lines of its summary."""
    found = own.scan(root, size=32, modalities=("rgb", "depth"))
    read, lines = {}, [f"{clip}: {reason}" for clip, reason in found.refused]
    for clip in found.clips:
        try:
            reading = found.read(clip)
        except own.DataError as error:
            lines.append(f"{clip.id}: {error}")
            continue
        read[clip.id] = {name: [_digest(frame) for frame in frames] for name, frames in reading.frames.items()}
        if reading.repaired:
            lines.append(f"{clip.id}: {reading.repaired}")
        else:
            lengths = {len(frames) for frames in reading.frames.values()}
            assert lengths == {12}, f"{clip.id} has {lengths} frames, and nothing was said"
    return read, lines


def _digest(frame) -> str:
    return hashlib.sha256(frame if isinstance(frame, bytes) else np.ascontiguousarray(frame).tobytes()).hexdigest()


@both(20, 300)
def test_videos_and_pictures(tmp_path, figures, count):
    """AVI, MP4 and Matroska beside 16-bit PNGs: PNG has checksums, videos have none or few."""
    root = tmp_path / "raw"
    for number, (suffix, codec) in enumerate((("avi", "mpeg4"), ("mp4", "mpeg4"), ("mkv", "ffv1"), ("avi", "ffv1"))):
        rgb, depth = moving_square(12, 48, 64, seed=number)
        write_video(root / f"class{number % 2}" / f"clip{number}" / f"rgb.{suffix}", rgb, codec)
        write_pictures(root / f"class{number % 2}" / f"clip{number}" / "depth", depth)
    videos = sorted(root.rglob("rgb.*"))
    maps = sorted(root.rglob("*.png"))
    also = [f"clip{number}" for number in range(4)]
    read = functools.partial(clips, root)
    found = {
        "videos": tally(count // 2, 20, lambda: videos, read, also, checksum=False),
        "16-bit PNG": tally(count - count // 2, 21, lambda: maps[:12], read, also, checksum=False),
    }
    for kind in ("flipped", "zeroed", "truncated"):
        assert "undetectable" not in found["16-bit PNG"][kind]
    figures("raw media: no crash, no hang, no clip short without a word", damages=count, outcomes=found)


@both(20, 100)
def test_skeletons(tmp_path, figures, count):
    """NTU's text and UWA3D's MATLAB file."""
    h5py = pytest.importorskip("h5py")
    text = tmp_path / "S001C001P001R001A001.skeleton"
    text.write_text(skeleton_text([[("7", body_points().round(2))]] * 6))
    matlab = tmp_path / "a01_s01_e01_v01.mat"
    with h5py.File(matlab, "w", userblock_size=512) as file:
        file["A"] = np.random.default_rng(0).normal(size=(3, 15, 12))

    def ntu():
        length, bodies = skeleton.read(text)
        assert all(np.isfinite(body.joints).all() and body.frames.max() < length for body in bodies)
        return [length, [plain(vars(body)) for body in bodies]], []

    def mat():
        joints = uwa3dii.skeleton(matlab)
        assert joints.ndim == 3 and np.isfinite(joints).all()
        return plain(joints), []

    found = {
        "text": tally(count // 2, 22, lambda: [text], ntu, checksum=False),
        "MAT": tally(count - count // 2, 23, lambda: [matlab], mat, checksum=False),
    }
    figures("skeletons: no crash, no hang, finite numbers", damages=count, outcomes=found)


@both(30, 150)
def test_weights(tmp_path, figures, count):
    """What `import-weights` writes, PyTorch's and TensorFlow's files hold checksums; a plain .safetensors has none."""
    torch = pytest.importorskip("torch")
    network = values()
    save_file(torchvision(network), tmp_path / "plain.safetensors")
    torch.save({name: torch.tensor(value) for name, value in torchvision(network).items()}, tmp_path / "weights.pth")
    (tmp_path / "slim.ckpt").write_bytes(v1(slim(network)))
    v2(slim(network), tmp_path / "model")
    plain_file = tmp_path / "plain.safetensors"
    imported.write(pretrained.read(plain_file), tmp_path / "imported", plain_file)

    def read(path):
        return plain(pretrained.load(path, stage_sizes=STAGE_SIZES, width=4)), []

    kinds = {
        "imported": (tmp_path / "imported", [tmp_path / "imported" / imported.FILE]),
        "PyTorch": (tmp_path / "weights.pth", [tmp_path / "weights.pth"]),
        "TensorFlow V1": (tmp_path / "slim.ckpt", [tmp_path / "slim.ckpt"]),
        "TensorFlow V2": (tmp_path / "model", sorted(tmp_path.glob("model.*"))),
        "plain safetensors": (tmp_path / "plain.safetensors", [tmp_path / "plain.safetensors"]),
    }
    found = {
        name: tally(
            count // len(kinds),
            30 + number,
            lambda files=files: files,
            functools.partial(read, path),
            also=(str(path),),
            checksum=name != "plain safetensors",
        )
        for number, (name, (path, files)) in enumerate(kinds.items())
    }
    figures("weights: identical, or refused by name", damages=count // len(kinds) * len(kinds), outcomes=found)
