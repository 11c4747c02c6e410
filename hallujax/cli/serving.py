"""`hallujax serve`: a trained model behind a web page."""

import argparse
import importlib.util
import os
from collections.abc import Sequence

from hallujax.cli.cache import compile_cache
from hallujax.cli.folders import folder
from hallujax.errors import UsageError

NEEDED = ("av", "fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add(command) -> None:
    """Declares the command; `command` as in `hallujax.cli`."""
    sub = command("serve", _serve, "answer videos and webcam recordings on a web page and a JSON API")
    sub.add_argument("--model", type=folder, required=True, help="a run's workdir, or an export")
    sub.add_argument("--system", help="a row of the table (of those that need RGB alone, the best on validation)")
    sub.add_argument("--data", type=folder, help="folder of the prepared datasets, to show test clips with depth")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine alone)")
    sub.add_argument("--port", type=int, default=8000, help="0 for any that is free (%(default)s)")
    sub.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="answer to this host name too")
    sub.add_argument("--max-batch", type=_count, default=8, help="clips in one call of the network (%(default)s)")
    sub.add_argument("--max-wait", type=float, default=5.0, help="milliseconds to wait for others (%(default)s)")
    sub.add_argument("--decoders", type=_count, default=min(4, os.cpu_count() or 1), help="processes (%(default)s)")
    sub.add_argument("--max-requests", type=_count, default=32, help="at once; one more gets 429 (%(default)s)")
    sub.add_argument("--max-upload", type=_count, default=64, help="MiB (%(default)s)")
    sub.add_argument("--max-clip", type=_count, default=600, help="seconds (%(default)s)")
    sub.add_argument("--max-decode", type=_count, default=10, help="seconds of decoding (%(default)s)")
    sub.add_argument("--max-decode-memory", type=_count, default=1024, help="MiB (%(default)s)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _serve(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"serving needs {', '.join(missing)}: pip install 'hallujax[serve]'")
    compile_cache()
    from hallujax.serve.app import Capacity
    from hallujax.serve.command import serve
    from hallujax.serve.limits import Limits

    serve(
        options.model,
        system=options.system,
        data=options.data,
        host=options.host,
        port=options.port,
        allowed=options.allow_host,
        limits=Limits(
            upload_bytes=options.max_upload * 2**20,
            clip_seconds=options.max_clip,
            decode_seconds=options.max_decode,
            decode_bytes=options.max_decode_memory * 2**20,
            requests=options.max_requests,
        ),
        capacity=Capacity(decoders=options.decoders, max_batch=options.max_batch, max_wait=options.max_wait / 1000),
    )
