"""What tells one prepared dataset from another, and what to do about one that is not what it says."""

import hashlib
import json

PREPARE = "run `hallujax prepare` to build it"


def fingerprint(info: dict, index: str) -> str:
    """SHA-256 over shards, index (its SHA-256 is `index`) and classes, in hexadecimal."""
    digest = hashlib.sha256()
    for entry in info["modalities"].values():
        for shard in entry["shards"]:
            digest.update(shard["sha256"].encode())
    digest.update(index.encode())
    digest.update(json.dumps(list(info["classes"])).encode())
    return digest.hexdigest()
