"""Where the camera of the geometric depth encodings comes from."""

import dataclasses

from hallujax.data.encodings import GEOMETRIC
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions
from hallujax.errors import UsageError


def with_camera(options: TransformOptions, dataset: PreparedDataset) -> TransformOptions:
    """The same with the dataset's camera, where the encoding needs one and none is given.

    Raises:
      UsageError: if the dataset does not know it either.
    """
    if options.depth_encoding not in GEOMETRIC or options.depth_camera:
        return options
    if "intrinsics" not in dataset.info:
        raise UsageError(
            f"transforms.depth_encoding={options.depth_encoding} needs the camera, and {dataset.name} does not say "
            "which it is: set transforms.depth_camera to (fx / width, fy / height, cx / width, cy / height)"
        )
    known, (height, width) = dataset.info["intrinsics"], dataset.frame_size
    # The dataset counts pixels from the middle of the first.
    centre = (known["cx"] + 0.5) / width, (known["cy"] + 0.5) / height
    return dataclasses.replace(options, depth_camera=(known["fx"] / width, known["fy"] / height, *centre))
