"""What the server takes, and how it says no."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one request, and on all of them together.

    Attributes:
      upload_bytes: of a request's body.
      upload_seconds: for the body to arrive.
      clip_seconds: length of a clip.
      frame_pixels: of a frame, height times width, before it is cropped and resized.
      decode_seconds: for decoding, by the clock.
      decode_bytes: of memory that decoding may take.
      requests: that are being uploaded, decoded or waiting at once; one more is refused.
    """

    upload_bytes: int = 64 * 2**20
    upload_seconds: float = 30.0
    clip_seconds: float = 600.0
    frame_pixels: int = 4096 * 2304
    decode_seconds: float = 10.0
    decode_bytes: int = 2**30
    requests: int = 32


class Refusal(Exception):
    """An answer that is no prediction: an HTTP status, a word that counts it, and one line for people."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
