"""`hallujax serve` under load on loopback: requests a second, latency, memory, and whether every answer is right.

    python benchmarks/serve_load.py --model runs/table/seed0                       # 10,000 requests
    python benchmarks/serve_load.py --model exports/step4 --requests 500 --connections 1 8

Client and server share the machine's cores. A request is a form with a video, H.264, 2 seconds of 25 frames of 320x240;
there are 64 different ones, sent in turn. An answer is wrong if a probability differs by more than 1e-4 from that of
`hallujax.load` for the same file. Each row is a block of requests; memory is resident, of the server and its decoders
together, at the block's end.
"""

import argparse
import concurrent.futures
import datetime
import http.client
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import av
import numpy as np
from recording import machine, versions, write

import hallujax

HERE = pathlib.Path(__file__).parent
PACKAGES = ("jax", "jaxlib", "flax", "av", "fastapi", "starlette", "uvicorn")
BOUNDARY = "serve-load"
TOLERANCE = 1e-4
WARM_UP = 200  # requests that are not counted
CLIPS, LENGTH, HEIGHT, WIDTH = 64, 50, 240, 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a run's workdir, or an export")
    parser.add_argument("--requests", type=int, default=10_000, help="for each number of connections (%(default)s)")
    parser.add_argument("--block", type=int, default=1000, help="requests a row (%(default)s)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="at once (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "serve_load.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [film(pathlib.Path(folder) / f"{i}.mp4", i) for i in range(CLIPS)]
        predictor = hallujax.load(args.model)
        expected = [prediction.probabilities for prediction in predictor.predict_many(files)]
        bodies = [form(file.read_bytes()) for file in files]
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "command": f"python benchmarks/serve_load.py {' '.join(sys.argv[1:])}",
        "system": predictor.system.name,
        "frame": "x".join(map(str, predictor.system.frame_size)),
    }
    server, port = start(args.model)
    try:
        load(port, bodies, expected, WARM_UP, 8)
        for connections in args.connections:
            for done in range(0, args.requests, args.block):
                block = load(port, bodies, expected, min(args.block, args.requests - done), connections)
                rows = [about | {"connections": connections, "done": done} | block | {"rss_mib": resident(server.pid)}]
                print({key: value for key, value in rows[0].items() if key not in about}, flush=True)
                write(rows, args.out)
    finally:
        server.terminate()
        server.wait(60)


def film(path: pathlib.Path, seed: int) -> pathlib.Path:
    """A video of a few discs that move over a noisy ground."""
    draw, grid = np.random.default_rng(seed), np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ground = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    places, speeds = draw.uniform(0, [[HEIGHT, WIDTH]] * 4), draw.normal(0, 3, (4, 2))
    colours, radii = draw.integers(0, 256, (4, 3)), draw.uniform(10, 60, 4)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for t in range(LENGTH):
            picture = ground.copy()
            for place, speed, colour, radius in zip(places, speeds, colours, radii, strict=True):
                centre = (place + t * speed) % (HEIGHT, WIDTH)
                picture[((grid - centre[:, None, None]) ** 2).sum(0) < radius**2] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def form(video: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="video"; filename="clip.mp4"\r\n\r\n'
    return head.encode() + video + f"\r\n--{BOUNDARY}--\r\n".encode()


def start(model: pathlib.Path) -> tuple[subprocess.Popen, int]:
    """A server at a free port."""
    command = [sys.executable, "-m", "hallujax.cli", "serve", "--model", str(model), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        print(line, end="", flush=True)
        if "listening at" in line:
            return server, int(line.rsplit(":", 1)[1])
    raise SystemExit("the server did not start")


def load(port: int, bodies: list[bytes], expected: list[np.ndarray], requests: int, connections: int) -> dict[str, str]:
    """`requests` over so many connections, which stay open."""
    numbers, lock = iter(range(requests)), threading.Lock()

    def client(_: int) -> list[tuple[float, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        found = []
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return found
            clip, started = number % len(bodies), time.perf_counter()
            connection.request(
                "POST",
                "/api/predict",
                bodies[clip],
                {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            )
            answer = connection.getresponse()
            said = json.loads(answer.read())
            seconds = time.perf_counter() - started
            if answer.status != 200:
                found.append((seconds, "failed"))
            elif np.abs(np.array(said["scores"]["fused"]) - expected[clip]).max() > TOLERANCE:
                found.append((seconds, "wrong"))
            else:
                found.append((seconds, "right"))

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(connections) as threads:
        found = list(itertools.chain.from_iterable(threads.map(client, range(connections))))
    wall = time.perf_counter() - started
    latency = np.percentile([1000 * seconds for seconds, _ in found], [50, 99, 100])
    verdicts = [verdict for _, verdict in found]
    return {
        "requests": str(len(found)),
        "requests_a_second": f"{len(found) / wall:.1f}",
        **{name: f"{value:.1f}" for name, value in zip(("p50_ms", "p99_ms", "max_ms"), latency, strict=True)},
        "wrong": str(verdicts.count("wrong")),
        "failed": str(verdicts.count("failed")),
    }


def resident(pid: int) -> str:
    """MiB of a process and its children, read from /proc."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    children = {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}
    kilobytes = 0
    for each in (str(pid), *children):
        lines = pathlib.Path(f"/proc/{each}/status").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return f"{kilobytes / 1024:.0f}"


if __name__ == "__main__":
    main()
