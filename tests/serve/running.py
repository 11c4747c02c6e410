"""A real `hallujax serve` in a process of its own, and how to talk to it."""

import contextlib
import http.client
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import urllib.parse

BOUNDARY = "8f2b1c"
SECONDS_TO_START = 300


class Server:
    """A server at `port` of 127.0.0.1, process `pid`; `log` is all that it printed."""

    def __init__(self, process, port, lines):
        self.process, self.pid, self.port, self._lines = process, process.pid, port, lines

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    @property
    def log(self):
        return "".join(self._lines)

    def request(self, method, path, body=None, headers=None):
        """`(status, headers, body)` of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def get(self, path):
        """The JSON of a page that must be there."""
        status, _, body = self.request("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def predict(self, video: bytes, query="", name="clip.mp4"):
        """`(status, answer)` of an upload."""
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        status, _, body = self.request("POST", f"/api/predict{query}", form(video, name), kind)
        return status, json.loads(body)

    def stop(self):
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def form(video, name="clip.mp4", field="video"):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + video + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def serving(*arguments, folder=None):
    """`hallujax serve ARGUMENTS` at a free port, started in `folder`."""
    root = str(pathlib.Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "hallujax.cli", "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
    )
    lines, addresses = [], queue.SimpleQueue()

    def listen():
        for line in process.stdout:
            lines.append(line)
            if "listening at " in line:
                addresses.put(urllib.parse.urlsplit(line.split("listening at ")[1].strip()).port)
        addresses.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        port = addresses.get(timeout=SECONDS_TO_START)
        assert port is not None, "".join(lines)
        yield Server(process, port, lines)
    finally:
        process.kill()
        process.wait()


def children(pid):
    """`{process: its name}` of the direct children of a process."""
    found = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    threads = [task / "children" for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    every = {int(child) for each in (found, *threads) for child in each.read_text().split()}
    return sorted(every)
