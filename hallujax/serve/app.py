"""The application: routes, and what happens to an upload."""

import contextlib
import dataclasses
import importlib.resources
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from hallujax import errors
from hallujax.data.noise import NOISES
from hallujax.deploy.activation import overlay
from hallujax.serve import schema
from hallujax.serve.batching import Batcher, Timed
from hallujax.serve.benchmark import Benchmark, Clip
from hallujax.serve.decoder import Settings
from hallujax.serve.decoding import DecodingPool
from hallujax.serve.failing import FALSE_ALARMS, KINDS, FailingDepth, Sweep
from hallujax.serve.guard import LOOPBACK, Guard
from hallujax.serve.images import as_strip, as_uri
from hallujax.serve.limits import Limits, Refusal
from hallujax.serve.metrics import Metrics
from hallujax.serve.model import Answer, Model
from hallujax.serve.uploads import FIELD, uploaded

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
REFUSALS = {
    status: {"model": schema.Error, "description": text}
    for status, text in (
        (408, "the upload took too long"),
        (413, "the upload is too large"),
        (415, "not a form, or not a video"),
        (422, "a video that is damaged, too long, or of too large frames"),
        (429, "too many requests at once"),
        (503, "a decoder was lost, or the server is stopping"),
        (504, "decoding took too long"),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much work is done at once.

    Attributes:
      decoders: processes that decode.
      max_batch: clips in one call of the network.
      max_wait: seconds that the first of them waits for others.
    """

    decoders: int
    max_batch: int
    max_wait: float


class Server:
    """What the routes share; started and stopped with the application."""

    def __init__(
        self,
        model: Model,
        benchmark: Benchmark | None,
        failing: FailingDepth | None,
        missing: list[str],
        limits: Limits,
        capacity: Capacity,
    ):
        self.model, self.benchmark, self.failing, self.missing, self.limits = model, benchmark, failing, missing, limits
        self.metrics = Metrics()
        self._under_way = 0
        settings = Settings(
            frames=model.system.frames,
            frame_size=model.system.frame_size,
            clip_seconds=limits.clip_seconds,
            frame_pixels=limits.frame_pixels,
            decode_seconds=limits.decode_seconds,
            decode_bytes=limits.decode_bytes,
        )
        self.pool = DecodingPool(settings, capacity.decoders, self.metrics.restarts.inc)
        self.batcher = Batcher(
            model.answer,
            max_batch=capacity.max_batch,
            max_wait=capacity.max_wait,
            on_batch=self.metrics.batches.observe,
        )

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        del app
        async with self.pool, self.batcher:
            yield

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Raises Refusal 429 where too many requests are under way already."""
        if self._under_way >= self.limits.requests:
            raise Refusal(429, "busy", f"{self._under_way} requests are under way already; try again in a moment")
        self._under_way += 1
        self.metrics.under_way.set(self._under_way)
        try:
            yield
        finally:
            self._under_way -= 1
            self.metrics.under_way.set(self._under_way)

    async def predict(self, request: Request, frames: bool, maps: bool) -> schema.Prediction:
        """An upload's prediction."""
        started = time.monotonic()
        with self.admitted():
            async with uploaded(request, self.limits) as descriptor:
                arrived = time.monotonic()
                decoded = await self.pool.decode(descriptor)
            ready = time.monotonic()
            timed = await self.batcher(decoded.frames)
        clip = schema.Sampled(seconds=decoded.seconds, length=decoded.length, times=list(decoded.sampled))
        timing = self._timing(started, arrived - started, ready - arrived, timed)
        return self._described(timed.answer, decoded.frames, clip, timing, frames, maps)

    async def show(self, clip: Clip) -> schema.BenchmarkClip:
        """A benchmark clip: its RGB predicted on, its depth shown."""
        started = time.monotonic()
        with self.admitted():
            batch = await self.batcher.run(self.benchmark.batch, clip)
            ready = time.monotonic()
            frames = batch["rgb"][0]
            timed = await self.batcher(frames)
            timing = self._timing(started, 0.0, ready - started, timed)
            depth = await self.batcher.run(self.benchmark.clean_depth, batch["depth"][0])
            found = await self.batcher.run(self.failing.compare, batch) if self.failing else None
        sampled = schema.Sampled(seconds=None, length=self.benchmark.length(clip), times=self.benchmark.sampled(clip))
        return schema.BenchmarkClip(
            name=clip.name,
            label=clip.label,
            prediction=self._described(timed.answer, frames, sampled, timing, True, True),
            depth=as_strip(depth),
            features={name: point.tolist() for name, point in found.items()} if found else None,
        )

    async def sweep(self, clip: Clip, kind: str) -> schema.Sweep:
        with self.admitted():
            batch = await self.batcher.run(self.benchmark.batch, clip)
            found: Sweep = await self.batcher.run(self.failing.sweep, batch, kind)
        return schema.Sweep(
            noise=kind,
            severity=NOISES[kind].severity,
            levels=found.levels.tolist(),
            depth=[as_strip(frames) for frames in found.depth],
            doubt=found.doubt.tolist(),
            threshold=self.failing.threshold,
            false_alarms=FALSE_ALARMS,
            calibrated_on=self.failing.calibrated_on,
            switched=found.switched.tolist(),
            trusted=_system(self.failing.trusted, found.trusted),
            fallback=_system(self.failing.fallback, found.fallback),
            chosen=_system("switch", found.chosen),
            features=found.features.tolist(),
        )

    def clip(self, name: str) -> Clip:
        """Raises Refusal 404 for a name that is not in the benchmark."""
        if self.benchmark is None or name not in self.benchmark.clips:
            raise Refusal(404, "no_clip", "there is no such clip; /api/clips lists them")
        return self.benchmark.clips[name]

    def about(self) -> schema.Model:
        system = self.model.system
        return schema.Model(
            system=system.name,
            classes=list(system.classes),
            streams=list(self.model.streams),
            frames=system.frames,
            frame_size=system.frame_size,
            has_maps=self.model.has_maps,
            facts=self.model.facts,
            limits=schema.Bounds(**dataclasses.asdict(self.limits)),
            benchmark=self.benchmark is not None,
            failing=self.failing is not None,
            missing=self.missing,
        )

    def _timing(self, started: float, upload: float, decode: float, timed: Timed) -> schema.Timing:
        stages = {"upload": upload, "decode": decode, "wait": timed.waited, "network": timed.computed}
        for name, seconds in stages.items():
            self.metrics.stages.labels(name).observe(seconds)
        return schema.Timing(**stages, total=time.monotonic() - started)

    def _described(
        self, answer: Answer, seen: np.ndarray, clip: schema.Sampled, timing: schema.Timing, frames: bool, maps: bool
    ) -> schema.Prediction:
        fused = answer.scores["fused"]
        top = [schema.ClassProbability(label=label, probability=share) for label, share in fused.top(5)]
        return schema.Prediction(
            system=self.model.system.name,
            label=top[0].label,
            probability=top[0].probability,
            top=top,
            scores={name: answer.scores[name].probabilities.tolist() for name in self.model.streams},
            clip=clip,
            timing=timing,
            frames=[as_uri(frame) for frame in seen] if frames else None,
            maps={name: [as_uri(shown) for shown in overlay(seen, each)] for name, each in answer.maps.items()}
            if maps
            else None,
        )


def create_app(server: Server, hosts: Collection[str]) -> ASGIApp:
    """The ASGI application; `hosts` are the names, without ports, that it answers to beside those of this machine."""
    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="hallujax serve",
        summary="Classes of video clips, from RGB alone.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=server.running,
    )
    _handle_errors(app, server.metrics)
    _add_page(app)
    _add_health(app, server)

    @app.get("/api/model")
    async def model() -> schema.Model:
        """The system, its classes, and the limits of this server."""
        return server.about()

    @app.post("/api/predict", responses=REFUSALS, openapi_extra=FORM, response_model_exclude_none=True)
    async def predict(request: Request, frames: bool = False, maps: bool = False) -> schema.Prediction:
        """The classes of a video, sent as the field `video` of a form."""
        return await server.predict(request, frames, maps)

    if server.benchmark is not None:
        _add_benchmark(app, server)
    routes = [route.path for route in app.routes]
    return Guard(app, (*LOOPBACK, *hosts), routes, server.metrics)


def _add_benchmark(app: FastAPI, server: Server) -> None:
    missing = {404: {"model": schema.Error, "description": "no such clip"}, 429: REFUSALS[429]}
    name = Annotated[str, Path(description="of /api/clips")]

    @app.get("/api/clips")
    async def clips() -> schema.Clips:
        """The test clips of the benchmark that the model was trained on."""
        return schema.Clips(
            dataset=server.benchmark.dataset.name,
            protocol=server.benchmark.experiment.data.protocol,
            clips=[schema.ClipName(name=clip.name, label=clip.label) for clip in server.benchmark.clips.values()],
            noises=dict(KINDS) if server.failing else {},
        )

    @app.get("/api/clips/{clip}", responses=missing)
    async def clip(clip: name) -> schema.BenchmarkClip:
        """One of them, predicted on, with its depth."""
        return await server.show(server.clip(clip))

    if server.failing is None:
        return

    @app.get("/api/clips/{clip}/noise", responses=missing)
    async def noise(clip: name, kind: Annotated[str, Query(description="of /api/clips' noises")]) -> schema.Sweep:
        """One of them with its depth failing, level by level, and which system the discriminator chooses."""
        if kind not in KINDS:
            raise Refusal(422, "no_noise", f"there is no such noise; it can be {', '.join(KINDS)}")
        return await server.sweep(server.clip(clip), kind)

    @app.get("/api/features")
    async def features() -> schema.FeaturePoints:
        """Real and hallucinated features of validation clips, on the two axes along which they vary most."""
        found, classes = server.failing.features, server.benchmark.dataset.classes
        return schema.FeaturePoints(
            explained=found.explained,
            labels=[classes[label] for label in found.label],
            real=np.round(found.real, 5).tolist(),
            hallucinated=np.round(found.hallucinated, 5).tolist(),
        )


def _add_page(app: FastAPI) -> None:
    folder = importlib.resources.files("hallujax.serve") / "page"

    def file(name: str, kind: str) -> Callable[[], Any]:
        content = (folder / name).read_bytes()

        async def send() -> Response:
            return Response(content, media_type=kind)

        return send

    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, file(name, kind), include_in_schema=False, response_class=Response)


def _add_health(app: FastAPI, server: Server) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": schema.Error, "description": "it does not take work"}})
    async def readyz() -> dict[str, str]:
        """The networks are compiled and take work."""
        if not server.batcher.alive:
            raise Refusal(503, "not_ready", "the network's queue has stopped; start the server again")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(server.metrics.render(), media_type=server.metrics.content_type)


def _handle_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every error is one line of JSON."""

    def refuse(status: int, kind: str, message: str) -> JSONResponse:
        metrics.errors.labels(kind).inc()
        headers = {"retry-after": "1"} if status in (429, 503) else None
        return JSONResponse({"error": message, "kind": kind}, status, headers)

    @app.exception_handler(Refusal)
    async def refusal(request: Request, error: Refusal) -> JSONResponse:
        return refuse(error.status, error.kind, error.message)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return refuse(error.status_code, "http", str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return refuse(422, "invalid", f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.exception_handler(errors.DataError)
    async def data(request: Request, error: errors.DataError) -> JSONResponse:
        return refuse(500, "data", str(error))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return refuse(500, "bug", "the server failed at this request; its log says how")


def _system(name: str, probabilities: np.ndarray) -> schema.SystemAtLevels:
    return schema.SystemAtLevels(name=name, probabilities=np.round(probabilities, 6).tolist())
