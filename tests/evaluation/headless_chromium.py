"""Drives Debian's chromium over the pipe of its DevTools protocol: no driver, no package, no port."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def browse(path, *, width, height, flags=()):
    """A `Page` that shows the file `path`, or an address, in a window of that many CSS pixels."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        flags = [
            *flags,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        # chromium reads commands from descriptor 3 and answers on 4; Popen hands on no others by number.
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        browser = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, from_write),
            env=os.environ | {"TMPDIR": profile},  # a killed browser leaves folders there
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            with os.fdopen(to_write, "wb", 0) as commands, os.fdopen(from_read, "rb") as answers:
                yield Page(commands, answers, path, width, height)
        finally:
            browser.kill()
            browser.wait()


class Page:
    """What a loaded page did and is: `requests` (addresses it asked for), `evaluate`, `screenshot`."""

    def __init__(self, commands, answers, path, width, height):
        self._commands, self._answers, self._number = commands, answers, 0
        self._buffer, self._session, self.events = b"", None, []
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=path if isinstance(path, str) else path.resolve().as_uri())
        self._wait("Page.loadEventFired")

    @property
    def requests(self):
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self):
        """What the browser's console says, e.g. of a blocked request."""
        return [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]

    def evaluate(self, expression):
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['result'].get('description')}")
        return answer["result"].get("value")

    def choose_file(self, selector, path):
        """What a user does with a file dialogue."""
        found = self._call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        self._call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def emulate(self, **media):
        """Media features, say `prefers-color-scheme`, with underscores for hyphens."""
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self._call("Emulation.setEmulatedMedia", features=features)

    def press(self, key, code):
        """A key goes down and up, by its DOM name and its number."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        """The whole page, not only the window."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path):
        path.write_bytes(base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"]))

    def _call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        answer = self._receive(lambda found: found.get("id") == self._number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _wait(self, event):
        if not any(found["method"] == event for found in self.events):
            self._receive(lambda found: found.get("method") == event)

    def _receive(self, wanted):
        while True:
            while b"\0" not in self._buffer:
                data = os.read(self._answers.fileno(), 1 << 20)
                if not data:
                    raise RuntimeError("chromium closed the pipe")
                self._buffer += data
            text, self._buffer = self._buffer.split(b"\0", 1)
            found = json.loads(text)
            if "method" in found:
                self.events.append(found)
            if wanted(found):
                return found
