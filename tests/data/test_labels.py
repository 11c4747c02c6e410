"""The labels that training sees, of real clips: how many are known, which are wrong, and that the rest is not used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax import methods
from hallujax.data.labels import UNLABELLED, training_labels
from hallujax.data.pipeline import ClipLoader, training_batches
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, encode
from hallujax.errors import UsageError
from hallujax.models import VideoResNet
from hallujax.models.streams import Networks, initialize
from hallujax.training.step import player_losses

OPTIONS = TransformOptions(
    flip=0.0,
    shift=0,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=500.0,
    depth_far=6000.0,
)
CLIPS = np.array([f"clip{i}".encode() for i in range(400)])
LABELS = np.repeat(np.arange(4), 100)
ROWS = np.arange(0, 400, 2)


def labels(labelled=1.0, noise=0.0, true=LABELS):
    return training_labels(CLIPS, true, ROWS, classes=4, labelled=labelled, noise=noise)


def test_all_labels_are_known_and_right_unless_asked_otherwise():
    np.testing.assert_array_equal(labels(), LABELS)


def test_the_same_share_of_every_class_is_known_and_fewer_are_among_more():
    quarter, half = labels(0.25), labels(0.5)
    for label in range(4):
        of_class = ROWS[LABELS[ROWS] == label]
        assert (quarter[of_class] == label).sum() == 12 and (half[of_class] == label).sum() == 25
        assert (quarter[of_class] == UNLABELLED).sum() == 38
    assert set(np.flatnonzero(quarter[ROWS] >= 0)) <= set(np.flatnonzero(half[ROWS] >= 0))
    others = np.setdiff1d(np.arange(400), ROWS)
    np.testing.assert_array_equal(quarter[others], LABELS[others])
    assert all((labels(1e-6)[ROWS] == label).sum() == 1 for label in range(4))


def test_noise_replaces_a_share_of_the_known_labels_by_another_class():
    noisy, both = labels(noise=0.4), labels(0.5, noise=0.4)
    for label in range(4):
        of_class = ROWS[LABELS[ROWS] == label]
        assert (noisy[of_class] != label).sum() == 20
        known = of_class[both[of_class] != UNLABELLED]
        assert len(known) == 25 and (both[known] != label).sum() == 10
    wrong = noisy[noisy != LABELS]
    assert set(wrong) == {0, 1, 2, 3}, "every class is somebody's wrong one"
    others = np.setdiff1d(np.arange(400), ROWS)
    np.testing.assert_array_equal(noisy[others], LABELS[others])


def test_impossible_shares_are_refused():
    for labelled, noise, what in ((0.0, 0, "labelled"), (1.5, 0, "labelled"), (1, 1.0, "label_noise")):
        with pytest.raises(UsageError, match=f"data.{what} is"):
            labels(labelled, noise)


def test_a_hidden_label_changes_no_bit_of_any_loss(tiny):
    """Batches and every method's losses are the same whatever the labels are that nobody is to know."""
    dataset = PreparedDataset.open(tiny)
    rows = split(dataset, "cross_subject")["train"]
    true = np.array(dataset.index["label"], np.int32)
    seen = training_labels(dataset.index["clip"], true, rows, classes=4, labelled=0.3, noise=0.0)
    assert len(rows) == 12 and (seen[rows] >= 0).sum() == 4, "one of three in each class"

    def batch_of(seen):
        loader = ClipLoader(dataset, ("rgb", "depth"), frames=2, sampling="mixed", seed=0, labels=seen)
        return next(training_batches(loader, rows, batch_size=8, seed=1))

    batch = batch_of(seen)
    assert (batch["label"] == UNLABELLED).any() and (batch["label"] >= 0).any()
    hidden = batch["label"] == UNLABELLED
    stream = VideoResNet(num_classes=4, stage_sizes=(1,), width=4, bottleneck=8)
    for name, options in (
        ("single_stream", {"label_smoothing": 0.1}),
        ("hallucination", {"layer": "block1"}),
        ("admd", {}),
        ("distillation", {"teachers": {"depth": "depth"}}),
        ("balanced_two_stream", {"modalities": {"depth": "depth", "rgb": "rgb"}}),
    ):
        method = methods.build(name, stream, options)
        encoded = encode(batch, OPTIONS)
        params, batch_stats = initialize(method.networks, method.forward, encoded, jax.random.key(0))

        @jax.jit
        def terms(batch, method=method, params=params, batch_stats=batch_stats):
            outputs = method.forward(Networks(method.networks, params, batch_stats), batch)
            return player_losses(method, outputs, batch)[1], method.losses(outputs, batch)

        means, each = terms(encoded)
        assert all(np.isfinite(value) for value in means.values())
        hard = [v for terms in each.values() for term, v in terms.items() if term in ("ce", "hard", "real", "fool")]
        for values in hard:
            np.testing.assert_array_equal(np.asarray(values)[hidden], 0.0)
            assert (np.asarray(values)[~hidden] > 0).all()
        # Any other negative number in its place, as long as it is no label, is the same to the last bit.
        other, _ = terms(encoded | {"label": jnp.where(hidden, -7, batch["label"])})
        for term, value in means.items():
            assert np.array_equal(value, other[term]), term
