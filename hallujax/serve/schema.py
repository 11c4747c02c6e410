"""The answers of the JSON API, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    error: str = Field(description="one line for people")
    kind: str = Field(description="a word for programs")


class ClassProbability(BaseModel):
    label: str
    probability: float


class Sampled(BaseModel):
    seconds: float | None = Field(description="length of the clip; none where there is no clock")
    length: int = Field(description="frames in the clip")
    times: list[float] = Field(
        description="when the frames that were seen appear, in seconds or, without clock, frames"
    )


class Timing(BaseModel):
    """Seconds."""

    upload: float
    decode: float
    wait: float = Field(description="for the batch before, and for others to share this one")
    network: float = Field(description="of the whole batch")
    total: float


class Prediction(BaseModel):
    system: str
    label: str
    probability: float
    top: list[ClassProbability] = Field(description="the five likeliest classes, fused")
    scores: dict[str, list[float]] = Field(
        description="probabilities in the order of /api/model's classes: of the whole system as `fused`, and by stream"
    )
    clip: Sampled
    timing: Timing
    frames: list[str] | None = Field(None, description="what the networks saw, as data: addresses; with ?frames=true")
    maps: dict[str, list[str]] | None = Field(
        None,
        description="class-activation maps over the frames, by stream; with ?maps=true, none where the weights are "
        "inside an exported program",
    )


class Bounds(BaseModel):
    upload_bytes: int
    upload_seconds: float
    clip_seconds: float
    frame_pixels: int
    decode_seconds: float
    decode_bytes: int
    requests: int


class Model(BaseModel):
    system: str
    classes: list[str]
    streams: list[str] = Field(description="keys of a prediction's scores; `fused` is their mean")
    frames: int = Field(description="seen of every clip, evenly over it")
    frame_size: tuple[int, int] = Field(description="height and width in pixels, as in training")
    has_maps: bool
    facts: dict[str, Any] = Field(description="what the run said of the system when it was trained")
    limits: Bounds
    benchmark: bool = Field(description="whether /api/clips lists any")
    failing: bool = Field(description="whether the switch from depth to hallucination can be shown")
    missing: list[str] = Field(description="what cannot be shown, and why; a line each")


class ClipName(BaseModel):
    name: str
    label: str


class Clips(BaseModel):
    dataset: str
    protocol: str
    clips: list[ClipName]
    noises: dict[str, str]


class BenchmarkClip(BaseModel):
    name: str
    label: str
    prediction: Prediction
    depth: str = Field(description="clean depth as its network sees it, the frames side by side")
    features: dict[str, list[float]] | None = Field(
        description="`real` and `hallucinated`, on the axes of /api/features"
    )


class FeaturePoints(BaseModel):
    explained: float = Field(description="share of the variance along the two axes")
    labels: list[str]
    real: list[list[float]]
    hallucinated: list[list[float]]


class SystemAtLevels(BaseModel):
    name: str
    probabilities: list[list[float]] = Field(description="[level][class]")


class Sweep(BaseModel):
    noise: str
    severity: str
    levels: list[float]
    depth: list[str] = Field(description="by level, the frames side by side")
    doubt: list[float] = Field(description="the discriminator's probability that the depth features are hallucinated")
    threshold: float
    false_alarms: float = Field(description="share of clean validation clips above the threshold, at most")
    calibrated_on: int = Field(description="validation clips")
    switched: list[bool]
    trusted: SystemAtLevels
    fallback: SystemAtLevels
    chosen: SystemAtLevels
    features: list[list[float]]
