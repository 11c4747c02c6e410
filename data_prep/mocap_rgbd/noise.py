"""What the sensors add: a depth camera's errors and a video camera's."""

import numpy as np

from data_prep.mocap_rgbd.presets import DepthNoise, Difficulty


def sense_depth(rng: np.random.Generator, depth: np.ndarray, cosine: np.ndarray, noise: DepthNoise) -> np.ndarray:
    """True depth [H,W] in metres to uint16 millimetres with noise; 0 means no return.

    `cosine` [H,W] is that between surface and ray. Noise is added and rounded in disparity, where a
    structured-light sensor measures: there both are constant, so in depth both grow with its square.
    """
    true = 1.0 / depth
    disparity = true + rng.normal(0, noise.sigma, depth.shape)
    disparity = np.maximum(np.round(disparity / noise.step), 1) * noise.step
    millimetres = np.round(1000.0 / disparity)
    chance = np.where(cosine < noise.grazing, 0.5, noise.speckle)
    chance = np.where(_edges(true, noise.edge_jump), noise.edge_dropout, chance)
    lost = (rng.uniform(size=depth.shape) < chance) | (millimetres > 1000 * noise.maximum)
    return np.where(lost, 0, millimetres).astype(np.uint16)


def _edges(disparity: np.ndarray, jump: float) -> np.ndarray:
    """Pixels [H,W] where disparity bends by a depth step of more than `jump` metres; it is straight on every
    plane."""
    edges = np.zeros(disparity.shape, bool)
    limit = jump * disparity**2
    for bend, bound, edge in ((disparity, limit, edges), (disparity.T, limit.T, edges.T)):
        edge[1:-1] |= np.abs(bend[2:] + bend[:-2] - 2 * bend[1:-1]) > bound[1:-1]
    return edges


def sense_rgb(rng: np.random.Generator, light: np.ndarray, gain: np.ndarray, difficulty: Difficulty) -> np.ndarray:
    """Radiance [H,W,3] in 0..1 to uint8; `gain` [3] is exposure times white balance."""
    flicker = 1 + rng.normal(0, difficulty.flicker)
    value = 255.0 * light * (gain * flicker) + rng.normal(0, difficulty.rgb_noise, light.shape)
    return np.clip(np.round(value), 0, 255).astype(np.uint8)
