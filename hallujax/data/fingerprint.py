"""What tells one prepared dataset from another, and what to do about one that is not what it says."""

import hashlib
import json
from pathlib import PurePath

PREPARE = "run `hallujax prepare` to build it"
RENDERED = ("mocap_rgbd", "rgbd_objects")  # without raw files


def how_to_prepare(directory: PurePath) -> str:
    """The command that would make the dataset at `directory`, and what to say if it is elsewhere."""
    raw = "" if directory.name in RENDERED else " --raw RAW"
    return (
        f"`hallujax prepare {directory.name} --out {directory.parent}{raw}` makes it; if it is elsewhere, "
        "--config.data.directory=FOLDER says where in training, --data FOLDER afterwards"
    )


def fingerprint(info: dict, index: str) -> str:
    """SHA-256 over shards, index (its SHA-256 is `index`) and classes, in hexadecimal."""
    digest = hashlib.sha256()
    for entry in info["modalities"].values():
        for shard in entry["shards"]:
            digest.update(shard["sha256"].encode())
    digest.update(index.encode())
    digest.update(json.dumps(list(info["classes"])).encode())
    return digest.hexdigest()
