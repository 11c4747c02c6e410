"""Augmentation and encoding on the device: one draw a clip, the same for every modality and frame."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from hallujax.data.encodings import ALL, encode_depth
from hallujax.data.flow import FLOW
from hallujax.data.geometry import Camera
from hallujax.data.joints import JOINTS
from hallujax.errors import UsageError

Array = jax.Array
Batch = dict[str, Array]

IMAGES = ("rgb", "depth", FLOW)  # the modalities that lie on the pixel grid and move together
MODALITIES = (*IMAGES, JOINTS)  # all that a stream can see

# Statistics of ImageNet in the two conventions that pretrained weights follow; the second leaves 0..255 unscaled.
NORMALIZATIONS: Mapping[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "vgg": (1.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "none": (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformOptions:
    """What happens to a clip between the record and the network.

    Attributes:
      flip: probability of a horizontal flip, in training.
      shift: largest random shift in pixels, horizontal and vertical, with the border repeated; in training. A
        shift is a random crop of the padded frame: the frame size stays.
      downsample: factor by which height and width shrink, by the means over squares of pixels of the encoded frames;
        must divide both.
      rgb_normalization: `imagenet`, `vgg` (the released code) or `none`.
      depth_encoding: one of `encodings.ALL`.
      depth_near, depth_far: range of the encoding in millimetres.
      depth_camera: `(fx / width, fy / height, cx / width, cy / height)` of the dataset's frames, for encodings that
        need it; None (or empty) for what the dataset says of itself. Flipped and shifted frames are encoded as this
        camera's: a flip is exact where the principal point is in the middle, a shift moves it by so many pixels.
    """

    flip: float
    shift: int
    downsample: int
    rgb_normalization: str
    depth_encoding: str
    depth_near: float
    depth_far: float
    depth_camera: Camera | None = None

    def __post_init__(self):
        # A list in JSON, empty in a configuration that leaves it to the dataset.
        object.__setattr__(self, "depth_camera", tuple(map(float, self.depth_camera or ())) or None)
        if self.depth_camera and (len(self.depth_camera) != 4 or min(self.depth_camera[:2]) <= 0):
            raise UsageError(
                f"transforms.depth_camera is {self.depth_camera}; "
                "it must be (fx / width, fy / height, cx / width, cy / height)"
            )
        if self.downsample < 1:
            raise UsageError(f"transforms.downsample is {self.downsample}; 1 keeps the frames as they are")
        if self.rgb_normalization not in NORMALIZATIONS:
            raise UsageError(
                f"transforms.rgb_normalization is {self.rgb_normalization!r}; known: {', '.join(NORMALIZATIONS)}"
            )
        if self.depth_encoding not in ALL:
            raise UsageError(f"transforms.depth_encoding is {self.depth_encoding!r}; known: {', '.join(ALL)}")


def encode(batch: Batch, options: TransformOptions) -> Batch:
    """RGB, depth and flow of a batch as float32 `[B, T, H, W, C]`; the rest of the batch as it is.

    Raises:
      UsageError: if the frames do not divide by `options.downsample`, or depth is stored as 8-bit pictures and the
        encoding is one of millimetres, or the other way round.
    """
    encoded = dict(batch)
    if "rgb" in batch:
        scale, mean, deviation = NORMALIZATIONS[options.rgb_normalization]
        encoded["rgb"] = (batch["rgb"].astype(jnp.float32) / scale - jnp.array(mean)) / jnp.array(deviation)
    if "depth" in batch:
        if (batch["depth"].dtype == jnp.uint8) != (options.depth_encoding == "picture"):
            raise UsageError(
                f"transforms.depth_encoding is {options.depth_encoding!r}, but this dataset's depth is stored in "
                + ("8-bit pictures: set it to picture" if batch["depth"].dtype == jnp.uint8 else "millimetres")
            )
        encoded["depth"] = encode_depth(
            batch["depth"],
            options.depth_encoding,
            near=options.depth_near,
            far=options.depth_far,
            camera=options.depth_camera,
        )
    if FLOW in batch:
        # Its length in a third channel, as many as depth and RGB have; a tenth of the frame's height is 1.
        length = jnp.linalg.norm(batch[FLOW], axis=-1, keepdims=True)
        encoded[FLOW] = jnp.concatenate([batch[FLOW], length], axis=-1) / (0.1 * batch[FLOW].shape[2])
    return encoded | {name: _shrink(encoded[name], options.downsample) for name in IMAGES if name in batch}


def _shrink(frames: Array, factor: int) -> Array:
    if factor == 1:
        return frames
    clips, length, height, width, channels = frames.shape
    if height % factor or width % factor:
        raise UsageError(f"transforms.downsample is {factor}; frames of {height}x{width} pixels do not divide by it")
    squares = frames.reshape(clips, length, height // factor, factor, width // factor, factor, channels)
    return squares.mean(axis=(3, 5))


def augment(batch: Batch, key: Array, options: TransformOptions, mirror: Sequence[int] = ()) -> Batch:
    """Flips and shifts each clip, by a draw from `fold_in(key, sample)`: the number of hosts changes nothing.

    What flows to the right flows to the left in a flipped frame. Joints are flipped with the frames, left ones becoming
    right ones by `mirror` (`data.joints.mirrored_joints`), and have no place that a shift could change.
    """

    def one_clip(clip: Batch, sample: Array) -> Batch:
        flip_key, shift_key = jax.random.split(jax.random.fold_in(key, sample))
        flipped = jax.random.bernoulli(flip_key, options.flip)
        shifts = jax.random.randint(shift_key, (2,), 0, 2 * options.shift + 1)

        def move(frames):  # [T, H, W, ...]
            frames = jnp.where(flipped, frames[:, :, ::-1], frames)
            if options.shift == 0:
                return frames
            margin = [(0, 0), (options.shift,) * 2, (options.shift,) * 2] + [(0, 0)] * (frames.ndim - 3)
            padded = jnp.pad(frames, margin, mode="edge")
            start = (0, shifts[0], shifts[1]) + (0,) * (frames.ndim - 3)
            return jax.lax.dynamic_slice(padded, start, frames.shape)

        moved = {name: move(clip[name]) for name in IMAGES if name in clip}
        if FLOW in clip:
            moved[FLOW] = jnp.where(flipped, moved[FLOW] * jnp.array([-1.0, 1.0]), moved[FLOW])
        if JOINTS in clip:
            joints = clip[JOINTS]  # [T, bodies, J, 3]
            moved[JOINTS] = jnp.where(flipped, joints[:, :, list(mirror)] * jnp.array([-1.0, 1.0, 1.0]), joints)
        return moved

    clips = {name: batch[name] for name in MODALITIES if name in batch}
    return batch | jax.vmap(one_clip)(clips, batch["sample"])


def prepare_training(batch: Batch, key: Array, *, options: TransformOptions, mirror: Sequence[int] = ()) -> Batch:
    """What `training.step.train_step` does to its batch first."""
    return encode(augment(batch, key, options, mirror), options)
