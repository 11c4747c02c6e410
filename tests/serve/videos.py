"""Videos in memory, good and bad."""

import fractions
import io
import zipfile

import av
import numpy as np

MILLISECOND = fractions.Fraction(1, 1000)


def encode(frames, kind="mov", codec="png", pixels="rgb24"):
    """A video of `frames` uint8 `[T, H, W, 3]` as bytes; lossless by default."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def repeated(height, width, count, milliseconds=40):
    """One black frame `count` times: a few bytes a pixel row, however large; encoded once."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = height, width, "rgb24", MILLISECOND
    black = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
    (packet,) = [*encoder.encode(black), *encoder.encode()]
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        for i in range(count):
            again = av.Packet(bytes(packet))
            again.stream, again.time_base, again.is_keyframe = stream, MILLISECOND, True
            again.pts = again.dts = milliseconds * i
            container.mux(again)
    return file.getvalue()


def noise(seed, count=7, height=32, width=32):
    """Random frames uint8 `[count, height, width, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def zip_bomb():
    """10 MB of zeros in 10 kB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


def mutated(video, seed):
    """A video with some of its bytes changed, cut out, zeroed or repeated."""
    draw, data = np.random.default_rng(seed), bytearray(video)
    for _ in range(draw.integers(1, 8)):
        start = int(draw.integers(0, len(data)))
        stop = min(len(data), start + int(draw.integers(1, 64)))
        kind = draw.integers(0, 5)
        if kind == 0:
            data[start:stop] = draw.bytes(stop - start)
        elif kind == 1:
            data[start] ^= 1 << int(draw.integers(0, 8))
        elif kind == 2:
            data[start:stop] = bytes(stop - start)
        elif kind == 3:
            data[start:start] = data[start:stop]
        elif len(data) > 64:
            del data[start : stop if draw.random() < 0.5 else len(data)]
        data = data or bytearray(b"\0")
    return bytes(data)
