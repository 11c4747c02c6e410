"""Around the application: whom it answers, what its answers tell a browser, and their count."""

import time
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hallujax.serve.metrics import Metrics

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Answers requests for its own hosts and from its own pages alone; any other gets 403.

    A page of somebody else's may have its name point at 127.0.0.1 once it is loaded (DNS rebinding): its requests carry
    that name as their Host. One that posts a form across origins says so in Origin.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], routes: Sequence[str], metrics: Metrics):
        """`hosts` are names without ports; `routes` those that are counted by name, all others together."""
        self._app, self._hosts, self._metrics = app, {host.lower() for host in hosts}, metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                route = self._route(scope)
                self._metrics.requests.labels(route, message["status"]).inc()
                self._metrics.seconds.labels(route).observe(time.monotonic() - started)
            await send(message)

        if why := self._wrong(Headers(scope=scope)):
            self._metrics.errors.labels("foreign").inc()
            await JSONResponse({"error": why, "kind": "foreign"}, 403)(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _wrong(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if (_name(host) or "") not in self._hosts:
            return "this server does not answer to that host name; --allow-host adds one"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "requests from other sites' pages are not answered"
        return None

    def _route(self, scope: Scope) -> str:
        route = getattr(scope.get("route"), "path", scope["path"])
        return route if route in self._routes else "other"


def _name(host: str) -> str | None:
    """The host name in a Host header, lower case, without port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
