"""Where a stream looks: class-activation maps of its last maps, and how to show them."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hallujax.deploy.system import RgbSystem
from hallujax.models import head_of
from hallujax.models.streams import Variables

# Nine colours of cividis (Nunez, Anderton and Renslow, PLOS ONE 2018), which people with any common kind of colour
# vision see alike: dark blue, grey, yellow. What lies between is interpolated.
CIVIDIS = (
    (0, 34, 77),
    (26, 56, 111),
    (67, 78, 107),
    (97, 100, 111),
    (124, 123, 120),
    (154, 147, 118),
    (186, 172, 108),
    (220, 200, 88),
    (253, 231, 55),
)
OPACITY = 0.7  # of the colour where the map is 1


def class_activations(
    system: RgbSystem, variables: Variables, rgb: jax.Array, classes: jax.Array
) -> dict[str, jax.Array]:
    """Maps `{stream: [B, T, h, w]}` float32 of what speaks for a class: 0 nothing, 1 the clip's strongest place.

    Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2) on the maps `A [T, h, w, C]` that the stream pools, with
    `y_c` the stream's clip logit of class c, frame by frame:

        alpha[t, k] = mean over x, y of d y_c / d A[t, x, y, k]
        M[t, x, y]  = max(0, sum over k of alpha[t, k] A[t, x, y, k]),  then divided by its largest value in the clip

    Where the classifier sits on the pooled maps (no bottleneck), alpha[t, k] is its weight w[k, c] / (T h w), and M the
    class-activation map `sum over k of w[k, c] A[t, x, y, k]` (Zhou et al., CVPR 2016, equation 2), its negative part
    cut off. Our streams have a bottleneck between the two, so the derivative is needed; it is of the stream's head
    alone.

    Args:
      system, variables: what was loaded; see `RgbSystem.logits`.
      rgb: uint8 `[B, T, H, W, 3]`.
      classes: int `[B]`, the class asked about in each clip.
    """
    outputs = system.outputs(variables, rgb)
    maps = {}
    for name, (stage, network) in system.streams.items():
        stream = system.methods[stage].networks[network]
        head = head_of(stream, "maps")
        part = head.part_of({kind: trees[network] for kind, trees in variables[stage].items()})
        last = outputs[stage][network].maps[f"block{len(stream.stage_sizes)}"].astype(jnp.float32)

        def scores(last, head=head, part=part):
            logits = head.apply(part, last).mean(axis=1)
            return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()  # clips do not depend on each other

        alpha = jax.grad(scores)(last).mean(axis=(2, 3), keepdims=True)
        found = jax.nn.relu((alpha * last).sum(axis=-1))
        strongest = found.max(axis=(1, 2, 3), keepdims=True)
        maps[name] = jnp.where(strongest > 0, found / jnp.where(strongest > 0, strongest, 1.0), 0.0)
    return maps


def overlay(frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Frames uint8 `[T, H, W, 3]` in grey under their maps `[T, h, w]` in 0..1, stretched over them, in colour.

    Colour, yellow for 1, covers a place the more the higher the map is there: nothing hides what is at 0.
    """
    shown = []
    for frame, values in zip(frames, maps, strict=True):
        height, width = frame.shape[:2]
        small = Image.fromarray(np.asarray(values, np.float32))
        large = np.clip(np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)), 0.0, 1.0)
        grey = np.asarray(Image.fromarray(frame).convert("L"), np.float32)[..., None]
        opacity = OPACITY * large[..., None]
        shown.append(np.round((1 - opacity) * grey + opacity * colours(large)).astype(np.uint8))
    return np.stack(shown)


def colours(values: np.ndarray) -> np.ndarray:
    """Values in 0..1, `[...]`, as RGB in 0..255, `[..., 3]` float32, dark blue to yellow."""
    places = np.linspace(0, 1, len(CIVIDIS))
    return np.stack([np.interp(values, places, channel) for channel in zip(*CIVIDIS, strict=True)], -1).astype("f")
