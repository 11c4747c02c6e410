"""Encodings of depth against scenes whose geometry is known, and against loops in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.data import geometry
from hallujax.data.cameras import with_camera
from hallujax.data.encodings import ALL, ENCODINGS, GEOMETRIC, LARGEST, encode_depth, jet
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, encode
from hallujax.errors import UsageError

HEIGHT, WIDTH = 36, 48
CAMERA = (0.9, 1.2, 0.52, 0.47)  # square pixels, the principal point off the middle
RANGE = {"near": 500.0, "far": 8000.0}
RNG = np.random.default_rng(0)

surface_normals = jax.jit(geometry.surface_normals, static_argnums=1)


def directions():
    """`[H, W, 3]` in float64: through each pixel's centre, z = 1; loops, by the definition of the camera."""
    fx, fy, cx, cy = CAMERA
    rays = np.ones((HEIGHT, WIDTH, 3))
    for i, j in itertools.product(range(HEIGHT), range(WIDTH)):
        rays[i, j, :2] = (j + 0.5 - cx * WIDTH) / (fx * WIDTH), (i + 0.5 - cy * HEIGHT) / (fy * HEIGHT)
    return rays


def plane(normal, distance):
    """z in metres of the plane `normal . P = -distance`, `normal` pointing to the camera."""
    return -distance / (directions() @ normal)


def unit(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


def degrees_between(a, b):
    return np.degrees(np.arccos(np.clip((np.asarray(a, np.float64) * b).sum(-1), -1, 1)))


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0.1, -0.8), (-0.3, -0.7, -0.6), (0.1, -0.9, -0.3)])
def test_normals_of_a_plane_are_the_planes(normal):
    """Everywhere, corners included; as real numbers to float32's precision, as millimetres to what rounding leaves."""
    normal = unit(normal)
    z = plane(normal, 1.5)
    seen = (z > 0.3) & (z < 5)
    exact = np.where(seen, 1000 * z, 0).astype(np.float32)
    found = np.asarray(surface_normals(exact, CAMERA))
    known = (found != 0).any(-1)
    # Where a plane recedes too fast its neighbours count as another surface.
    assert known[seen].mean() > 0.9 and not known[~seen].any()
    assert degrees_between(found[known], normal).max() < 0.2
    rounded = np.asarray(surface_normals(np.round(exact).astype(np.uint16), CAMERA))
    near = known & (z < 3)
    assert degrees_between(rounded[near], normal).max() < 3


def test_normals_of_a_sphere_point_out_of_its_middle():
    middle, radius = np.array([0.2, -0.1, 2.0]), 0.8
    rays = directions()
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - radius**2
    hit = b**2 > a * c
    z = np.where(hit, (b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a, 0)
    found = np.asarray(surface_normals((1000 * z).astype(np.float32), CAMERA))
    expected = (rays * z[..., None] - middle) / radius
    inside = hit & ((expected * rays).sum(-1) / np.sqrt(a) < -0.5)  # away from the rim
    assert inside.sum() > 100
    assert degrees_between(found[inside], expected[inside]).max() < 4
    assert not found[~hit].any()


def test_normals_are_the_least_squares_of_a_loop():
    """Rough ground with holes: every pixel's plane by `lstsq`, in float64."""
    depth = (2000 + 150 * RNG.normal(size=(HEIGHT, WIDTH))).astype(np.uint16)
    depth[RNG.random(depth.shape) < 0.3] = 0
    found, rays, compared = np.asarray(surface_normals(depth, CAMERA)), directions(), 0
    for i, j in itertools.product(range(HEIGHT), range(WIDTH)):
        taps = [
            (u, v)
            for u, v in itertools.product(range(i - 2, i + 3), range(j - 2, j + 3))
            if 0 <= u < HEIGHT and 0 <= v < WIDTH and depth[i, j] and depth[u, v]
            if abs(1 / depth[u, v] - 1 / depth[i, j]) < 0.1 / depth[i, j]
        ]
        matrix = np.array([rays[tap] for tap in taps]).reshape(-1, 3)
        if len(taps) == 0 or np.linalg.matrix_rank(matrix - matrix[0]) < 2:
            np.testing.assert_array_equal(found[i, j], 0)
            continue
        solution = np.linalg.lstsq(matrix, np.array([1000 / depth[tap] for tap in taps]), rcond=None)[0]
        assert degrees_between(found[i, j], -unit(solution)) < 0.3
        compared += 1
    assert compared > 800


def test_an_edge_does_not_bend_the_normals_beside_it():
    wall, step = plane(np.array([0.0, 0, -1]), 3.0), plane(unit([0.3, 0, -1]), 1.5)
    depth = np.where(np.arange(WIDTH) < WIDTH // 2, wall, step)
    found = np.asarray(surface_normals((1000 * depth).astype(np.float32), CAMERA))
    assert degrees_between(found[:, : WIDTH // 2], [0, 0, -1]).max() < 0.2
    assert degrees_between(found[:, WIDTH // 2 :], unit([0.3, 0, -1])).max() < 0.2


def room(pitch, roll):
    """A floor and two walls seen by a camera that looks down by `pitch` and leans by `roll`.

    Millimetres, the direction down, and of every pixel the metres above the floor and its surface (0 is the floor).
    """
    p, r = np.radians([pitch, roll])
    pitched = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rolled = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    to_camera = rolled @ pitched  # from level axes: x right, y down, z forward
    surfaces = (((0, -1, 0), 1.2), ((0.6, 0, -0.8), 2.4), ((-0.8, 0, -0.6), 2.4))
    z = np.stack([plane(to_camera @ normal, distance) for normal, distance in surfaces])
    z[z <= 0] = np.inf
    nearest = z.argmin(0)
    down = to_camera @ np.array([0.0, 1, 0])
    points = directions() * z.min(0)[..., None]
    return (1000 * z.min(0)).astype(np.float32), down, 1.2 - points @ down, nearest


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, 0), (30, 12), (-5, -15)])
def test_hha_of_a_room_seen_by_a_tilted_camera(pitch, roll):
    depth, down, above, surface = room(pitch, roll)
    normals = surface_normals(depth, CAMERA)
    assert degrees_between(jax.jit(geometry.gravity)(normals), down) < 1.5
    hole = np.zeros(depth.shape, bool)
    hole[4:7, 20:25] = True
    depth = np.where(hole, 0, depth)
    found = np.asarray(jax.jit(lambda d: geometry.hha(d, camera=CAMERA, **RANGE))(depth))
    np.testing.assert_array_equal(found[hole], 0)
    seen = ~hole
    disparity = (1 / depth[seen] - 1 / 8000) / (1 / 500 - 1 / 8000)
    np.testing.assert_allclose(found[seen][:, 0], np.clip(disparity, 0, 1), atol=1e-5)
    # The ground is the lowest that is seen; a degree of gravity over three metres is five centimetres.
    height = np.clip((above[seen] - above[seen].min()) / 2.55, 0, 1)
    assert np.abs(found[seen][:, 1] - height).max() < 0.05
    angle = 180 * found[..., 2]
    padded = np.pad(surface, 2, mode="edge")
    windows = np.stack([padded[i : i + HEIGHT, j : j + WIDTH] for i in range(5) for j in range(5)])
    plain = seen & (windows == surface).all(0)  # a window over a crease sees two planes
    assert plain.sum() > 1000
    for kind, expected in ((0, 180), (1, 90), (2, 90)):
        assert np.all(np.abs(angle[plain & (surface == kind)] - expected) < 2)


def test_gravity_stays_upright_where_nothing_says_otherwise():
    for normal in ((0, 0, -1), (0.6, 0, -0.8)):
        normals = np.broadcast_to(np.array(normal, np.float32), (HEIGHT, WIDTH, 3))
        assert degrees_between(geometry.gravity(jnp.asarray(normals)), [0, 1, 0]) < 1
    np.testing.assert_allclose(geometry.gravity(jnp.zeros((2, HEIGHT, WIDTH, 3)))[1], [0, 1, 0], atol=1e-6)


def test_frames_are_encoded_one_by_one():
    depth = np.stack([room(25, 0)[0], room(0, 10)[0]]).astype(np.uint16)[None]
    for name in ALL:
        together = encode_depth(depth, name, camera=CAMERA, **RANGE)
        assert together.shape[:4] == (1, 2, HEIGHT, WIDTH) and together.dtype == jnp.float32
        for t in range(2):
            alone = encode_depth(depth[0, t], name, camera=CAMERA, **RANGE)
            np.testing.assert_allclose(together[0, t], alone, atol=2e-3)


def test_normals_as_colours():
    """A wall ahead is blue, the floor green, what faces right red."""
    for normal, colour in (
        ((0, 0, -1), (0.5, 0.5, 1)),
        ((0, -0.8, -0.6), (0.5, 0.9, 0.8)),
        ((0.6, 0, -0.8), (0.8, 0.5, 0.9)),
    ):
        depth = (1000 * plane(np.array(normal, np.float64), 1.0)).astype(np.float32)
        depth[(depth < 300) | (depth > 5000)] = 0
        found = np.asarray(geometry.normals(depth, camera=CAMERA, **RANGE))
        known = found.any(-1)
        assert known.mean() > 0.5
        np.testing.assert_allclose(found[known], np.broadcast_to(colour, found[known].shape), atol=2e-3)
        np.testing.assert_array_equal(found[depth == 0], 0)


def test_jet_is_matlabs():
    """MATLAB's table of 4 n colours, which Eitel et al. and OpenCV took over, by its own loop: blue rises to 1, then
    green, then red, then red falls."""
    n = 64
    rise = [(k + 1) / n for k in range(n)]
    ramp = rise + [1.0] * (n - 1) + rise[::-1]
    table = np.zeros((4 * n, 3))
    for channel, offset in ((1, 0), (0, n), (2, -n)):
        for k, value in enumerate(ramp):
            place = n // 2 + k + offset
            if 0 <= place < 4 * n:
                table[place, channel] = value
    depth = np.arange(1000, 3001, 5).astype(np.uint16)
    index = np.clip(((depth - 1000) / 2000 * 4 * n).astype(int), 0, 4 * n - 1)
    found = np.asarray(jet(depth, near=1000, far=3000))
    np.testing.assert_allclose(found, table[index], atol=2.5 / n)


def test_one_channel_is_one_of_three():
    depth = RNG.integers(0, 9000, (4, 5), dtype=np.uint16)
    for one, three in (("nearness", "grey"), ("raw", "metres")):
        alone = encode_depth(depth, one, camera=None, **RANGE)
        assert alone.shape == (4, 5, 1)
        np.testing.assert_array_equal(jnp.repeat(alone, 3, -1), encode_depth(depth, three, camera=None, **RANGE))


@pytest.mark.parametrize("name", ALL)
def test_every_encoding_is_finite_within_its_range_and_black_without_a_return(name):
    depth = RNG.integers(0, 65536, (3, HEIGHT, WIDTH), dtype=np.uint16)
    depth[RNG.random(depth.shape) < 0.2] = 0
    depth[1] = 0
    depth[2] = RNG.integers(1, 4, depth.shape[1:])
    if name == "picture":
        depth //= 256  # of 8 bits
    found = np.asarray(encode_depth(depth, name, camera=CAMERA, **RANGE))
    assert np.isfinite(found).all()
    assert found.min() >= 0 and found.max() <= LARGEST[name]
    np.testing.assert_array_equal(found[depth == 0], 0)


def options(**changes):
    plain = {"flip": 0.0, "shift": 0, "downsample": 1, "rgb_normalization": "none", "depth_encoding": "hha"}
    return TransformOptions(**plain | {"depth_near": 500.0, "depth_far": 8000.0} | changes)


def test_the_camera_is_the_datasets_unless_one_is_given(tiny):
    dataset = PreparedDataset.open(tiny)
    resolved = with_camera(options(), dataset)
    known = dataset.info["intrinsics"]
    assert resolved.depth_camera == pytest.approx((known["fx"] / 32, known["fy"] / 32, 0.5, 0.5))
    given = options(depth_camera=[1.0, 1.0, 0.5, 0.4])
    assert with_camera(given, dataset) == given and given.depth_camera == (1.0, 1.0, 0.5, 0.4)
    assert with_camera(options(depth_encoding="jet"), dataset).depth_camera is None
    del dataset.info["intrinsics"]
    with pytest.raises(UsageError, match="mocap_rgbd does not say which it is"):
        with_camera(options(), dataset)


def test_a_camera_that_is_missing_or_impossible_is_named():
    depth = np.zeros((1, 1, 4, 4), np.uint16)
    for name in GEOMETRIC:
        with pytest.raises(UsageError, match=f"depth_encoding={name} needs the camera"):
            encode({"depth": depth}, options(depth_encoding=name))
    assert not set(GEOMETRIC) & set(ENCODINGS)
    for camera in ((1.0, 1.0), (0.0, 1.0, 0.5, 0.5)):
        with pytest.raises(UsageError, match="depth_camera is "):
            options(depth_camera=camera)


def test_frames_shrink_after_they_are_encoded():
    """The camera is the whole frame's; by the pipeline's own path."""
    depth = np.stack([room(25, 0)[0], room(25, 0)[0]]).astype(np.uint16)[None]
    small = jax.jit(lambda b: encode(b, options(downsample=2, depth_camera=CAMERA)))({"depth": depth})["depth"]
    whole = encode({"depth": depth}, options(depth_camera=CAMERA))["depth"]
    corners = [whole[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    np.testing.assert_allclose(small, sum(corners) / 4, atol=2e-3)
