"""The same frames by TFDS's own builder, to compare with."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds


class Frames(tfds.core.GeneratorBasedBuilder):
    """Every picture of a raw tree as an example of its own."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, raw: pathlib.Path, **options):
        self._raw = raw
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"rgb": tfds.features.Image(shape=(None, None, 3)), "clip": np.str_})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"frames": self._generate_examples()}

    def _generate_examples(self):
        for path in sorted(self._raw.rglob("rgb/*.png")):
            frame = io.BytesIO(path.read_bytes())  # arrays it encodes by TensorFlow
            yield path.relative_to(self._raw).as_posix(), {"rgb": frame, "clip": path.parent.parent.name}
