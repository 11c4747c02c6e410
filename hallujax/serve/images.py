"""Frames as pictures inside JSON."""

import base64
import io

import numpy as np
from PIL import Image


def as_uri(picture: np.ndarray) -> str:
    """A picture uint8 `[H, W, 3]` or `[H, W]` as the `data:` address of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def as_strip(frames: np.ndarray) -> str:
    """Frames `[T, H, W, ...]` side by side in one picture."""
    return as_uri(np.concatenate(list(frames), axis=1))
