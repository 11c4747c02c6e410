"""Sizes and difficulty of `mocap_rgbd`, the only numbers to turn when the benchmark is too easy or too
hard."""

import dataclasses

ACTIONS = (
    "backflip",
    "cartwheel",
    "crawl",
    "dance_a",
    "dance_b",
    "getup_facedown",
    "getup_faceup",
    "jump",
    "kick",
    "punch",
    "roll",
    "run",
    "spin",
    "spinkick",
    "walk",
)

# Part of the identity of a rendered dataset: raise it when the same preset and seed give other bytes.
VERSION = "2.0.0"


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What separates RGB from depth: all of it changes appearance and leaves the geometry alone.

    Set on validation clips, by depth, RGB and RGB started from depth: on `standard` (15 epochs, 56x56, seed 0) these
    reached 0.997, 0.894 and 0.947. With plainer rooms and clothes RGB came to 0.94, too near to tell methods apart.
    With a new room for every clip (810 clips, 64x64) it stayed at chance for a dozen epochs.

    Wavelengths of textures are in metres. They stay above about 7 pixels at 64x64: a trial with
    high-frequency backgrounds drove RGB to chance, which would say nothing about distillation.
    """

    rooms: int = 12  # that each camera sees again and again, as NTU's setups; 0 draws a new one for every clip
    texture_amplitude: float = 0.14  # of the albedo of walls, floor and objects, 0..1
    texture_wavelength: tuple[float, float] = (0.5, 2.0)
    clothing_amplitude: float = 0.12
    clothing_wavelength: tuple[float, float] = (0.25, 0.8)
    camouflage: tuple[float, float] = (0.0, 0.6)  # share of the scene's palette in the clothes, drawn per clip
    clutter: tuple[int, int] = (2, 5)  # solid objects around the performer
    posters: tuple[int, int] = (1, 4)  # flat shapes on the walls: visible to RGB, absent from depth
    ambient: tuple[float, float] = (0.45, 0.7)
    shadow: tuple[float, float] = (0.3, 0.7)  # share of the direct light a cast shadow takes away
    exposure: tuple[float, float] = (0.6, 1.15)
    flicker: float = 0.02  # standard deviation of the brightness from frame to frame
    rgb_noise: float = 6.0  # standard deviation, grey levels
    pose: float = 0.10  # standard deviation of the joint angles' variation, radians
    style: float = 0.08  # the same for a performer's constant habits


# For `quick`, whose budget is a few minutes: plainer rooms and clothes that stand out more.
EASIER = Difficulty(
    texture_amplitude=0.07,
    clothing_amplitude=0.06,
    camouflage=(0.0, 0.25),
    clutter=(1, 3),
    posters=(0, 2),
    ambient=(0.55, 0.75),
    shadow=(0.2, 0.5),
    exposure=(0.75, 1.15),
    rgb_noise=4.0,
)


@dataclasses.dataclass(frozen=True)
class DepthNoise:
    """A structured-light sensor: noise and quantisation in disparity, hence growing with distance squared.

    Steps follow Khoshelham and Elberink, "Accuracy and Resolution of Kinect Depth Data" (Sensors 2012): the
    random error is 1.425e-3 Z^2 metres at Z metres, and one disparity step is 2.85e-3 Z^2.
    """

    sigma: float = 1.4e-3  # metres at one metre
    step: float = 2.85e-3  # metres at one metre
    edge_jump: float = 0.2  # metres of depth between neighbours that count as an edge
    edge_dropout: float = 0.25  # probability that a pixel on an edge returns nothing
    speckle: float = 0.004  # probability that any pixel returns nothing
    grazing: float = 0.12  # surfaces seen under a smaller cosine return nothing half of the time
    maximum: float = 8.0  # metres; beyond it no return


@dataclasses.dataclass(frozen=True)
class Preset:
    """One size of the dataset: performers * repetitions * actions * 3 cameras clips of `frames` frames."""

    name: str
    size: int  # pixels, square
    performers: int
    repetitions: int
    frames: int
    shards: int  # fixed here and never by the number of workers, so the bytes do not depend on it
    supersample: int = 2
    actions: tuple[str, ...] = ACTIONS
    cameras: int = 3
    difficulty: Difficulty = Difficulty()
    depth_noise: DepthNoise = DepthNoise()

    @property
    def performances(self) -> int:
        return self.performers * self.repetitions * len(self.actions)

    @property
    def clips(self) -> int:
        return self.performances * self.cameras


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "tiny",
            32,
            performers=4,
            repetitions=1,
            frames=5,
            shards=2,
            actions=("jump", "kick", "punch", "walk"),
        ),
        Preset("quick", 48, performers=10, repetitions=2, frames=8, shards=10, difficulty=EASIER),
        Preset("standard", 112, performers=20, repetitions=4, frames=12, shards=40),
        Preset("full", 224, performers=40, repetitions=4, frames=16, shards=160, supersample=1),
    )
}
