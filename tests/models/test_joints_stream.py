"""The stream of joints against an LSTM written out in NumPy."""

import jax
import numpy as np

from hallujax.models import JointsStream, VideoResNet, joints_stream_of

JOINTS = np.random.default_rng(0).normal(size=(2, 4, 1, 3, 3)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(params, x):
    """Hochreiter and Schmidhuber's, with a forget gate: i, f, o are sigmoids, g is a tanh."""

    def gate(name, x, h):
        return x @ params[f"i{name}"]["kernel"] + h @ params[f"h{name}"]["kernel"] + params[f"h{name}"]["bias"]

    width = params["hi"]["kernel"].shape[0]
    c = h = np.zeros((len(x), width), np.float32)
    out = []
    for t in range(x.shape[1]):
        i, f, o = (sigmoid(gate(name, x[:, t], h)) for name in "ifo")
        c = f * c + i * np.tanh(gate("g", x[:, t], h))
        h = o * np.tanh(c)
        out.append(h)
    return np.stack(out, axis=1)


def test_two_layers_of_lstm_then_the_classifier():
    stream = JointsStream(num_classes=5, width=6)
    variables = stream.init(jax.random.key(0), JOINTS)
    params = jax.tree.map(np.asarray, variables["params"])
    x = JOINTS.reshape(2, 4, 9)
    for layer in ("lstm1", "lstm2"):
        x = lstm(params[layer], x)
    output = jax.jit(stream.apply)(variables, JOINTS)
    np.testing.assert_allclose(output.features, x, atol=1e-5)
    np.testing.assert_allclose(output.logits, x @ params["logits"]["kernel"] + params["logits"]["bias"], atol=1e-5)


def test_its_features_are_those_of_the_stream_it_goes_with():
    resnet = VideoResNet(num_classes=4, stage_sizes=(1, 1), width=4, bottleneck=8)
    stream = joints_stream_of(resnet)
    variables = stream.init(jax.random.key(0), JOINTS)
    frames = np.zeros((2, 4, 16, 16, 3), np.float32)
    whole = resnet.init(jax.random.key(0), frames)
    ours, theirs = (net.apply(v, x) for net, v, x in ((stream, variables, JOINTS), (resnet, whole, frames)))
    assert ours.features.shape == theirs.features.shape and ours.logits.shape == theirs.logits.shape
    assert (np.asarray(ours.features) >= 0).all() and ours.maps == {}
    _, moved = stream.apply(variables, JOINTS, train=True, mutable=["batch_stats"])
    assert (moved["batch_stats"]["bottleneck_bn"]["mean"] != 0).any()
