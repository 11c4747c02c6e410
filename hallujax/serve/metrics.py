"""What the server counts, for Prometheus."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server, each named in its first line of `render()`."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        about = {"registry": self._registry, "namespace": "hallujax"}
        self.requests = Counter("requests", "Answers, by route and status.", ["route", "status"], **about)
        self.errors = Counter("errors", "Refusals and failures, by kind.", ["kind"], **about)
        self.seconds = Histogram(
            "request_seconds", "From a request's headers to its answer.", ["route"], buckets=SECONDS, **about
        )
        self.stages = Histogram(
            "stage_seconds", "Upload, decoding, waiting, network.", ["stage"], buckets=SECONDS, **about
        )
        self.batches = Histogram("batch_clips", "Clips in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), **about)
        self.under_way = Gauge("requests_under_way", "Uploading, decoding or waiting, at this moment.", **about)
        self.restarts = Counter("decoder_restarts", "Decoding processes that were replaced.", **about)

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
