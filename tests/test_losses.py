"""Losses against NumPy statements of the equations, closed-form gradients and identities; all under `jax.jit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 5)).astype(np.float32)
TEACHER = RNG.normal(0, 2, (6, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 1, 3])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


def test_cross_entropy_is_minus_log_probability():
    actual = jax.jit(losses.cross_entropy)(LOGITS, LABELS)
    close(actual, -np.log(softmax(LOGITS)[np.arange(6), LABELS]))


def test_label_smoothing_mixes_in_the_uniform_distribution():
    actual = losses.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    target = 0.9 * np.eye(5)[LABELS] + 0.1 / 5
    close(actual, -(target * np.log(softmax(LOGITS))).sum(-1))


def test_labels_broadcast_over_frames():
    frames = RNG.normal(size=(6, 3, 5)).astype(np.float32)
    actual = losses.cross_entropy(frames, LABELS)
    assert actual.shape == (6, 3)
    for t in range(3):
        close(actual[:, t], losses.cross_entropy(frames[:, t], LABELS))
    with pytest.raises(ValueError, match="do not lead"):
        losses.cross_entropy(frames, LABELS[:3])


@pytest.mark.parametrize("soften", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("imitation", "temperature"), [(0.5, 10.0), (0.3, 2.0), (0.0, 3.0), (1.0, 1.0)])
def test_generalized_distillation_is_its_equation(imitation, temperature, soften, squared):
    actual = jax.jit(
        functools.partial(
            losses.generalized_distillation,
            imitation=imitation,
            temperature=temperature,
            soften_student=soften,
            temperature_squared=squared,
        )
    )(LOGITS, TEACHER, LABELS)
    student = LOGITS / temperature if soften else LOGITS
    hard = -np.log(softmax(LOGITS)[np.arange(6), LABELS])
    soft = -(softmax(TEACHER / temperature) * np.log(softmax(student))).sum(-1) * (temperature**2 if squared else 1)
    close(actual, (1 - imitation) * hard + imitation * soft, 1e-4)


def test_gradient_of_distillation_is_the_difference_of_probabilities():
    """d/df [ (1-l) CE + l CE(s, softmax f) ] = softmax(f) - (1-l) onehot - l s."""
    gradient = jax.grad(
        lambda f: losses.generalized_distillation(f, TEACHER, LABELS, imitation=0.3, temperature=4.0).sum()
    )(jnp.array(LOGITS))
    close(gradient, softmax(LOGITS) - 0.7 * np.eye(5)[LABELS] - 0.3 * softmax(TEACHER / 4))


def test_temperature_squared_keeps_the_gradient_at_high_temperature():
    """Hinton et al. 2015: for large T the gradient of T^2 times the softened term is (f - t) / K, zero-meaned."""
    student, teacher = (x - x.mean(-1, keepdims=True) for x in (LOGITS, TEACHER))
    gradient = jax.grad(
        lambda f: losses.soft_cross_entropy(
            f, teacher, temperature=1e3, soften_student=True, temperature_squared=True
        ).sum()
    )(jnp.array(student))
    close(gradient, (student - teacher) / 5, 2e-2)


def test_student_equal_to_teacher_has_no_distillation_gradient():
    gradient = jax.grad(lambda f: losses.soft_cross_entropy(f, TEACHER, temperature=3.0, soften_student=True).sum())(
        jnp.array(TEACHER)
    )
    close(gradient, 0.0, 1e-6)


def test_teacher_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="same classes"):
        losses.soft_cross_entropy(LOGITS, TEACHER[:, :4])


def test_hallucination_sums_squared_differences_of_sigmoids():
    a, b = (RNG.normal(size=(4, 3, 2, 2, 5)).astype(np.float32) for _ in range(2))
    squared = (1 / (1 + np.exp(-a)) - 1 / (1 + np.exp(-b))) ** 2
    actual = jax.jit(functools.partial(losses.hallucination, scale=0.05))(a, b)
    assert actual.shape == (4,)
    close(actual, 0.05 * squared.reshape(4, -1).sum(-1))
    close(losses.hallucination(a, a), 0.0)
    with pytest.raises(ValueError, match="differ"):
        losses.hallucination(a, b[:, :2])


def test_hallucination_sums_in_float32():
    """A sum of 100,352 terms of 0.0625 in bfloat16 would stop growing at 16."""
    ones = jnp.full((1, 7, 7, 2048), 100.0, jnp.bfloat16)
    close(losses.hallucination(ones, jnp.zeros_like(ones)), 0.25 * 7 * 7 * 2048)


def test_privileged_distillation_weighs_its_two_terms():
    close(losses.privileged_distillation(jnp.array([2.0, 4.0]), jnp.array([10.0, 0.0]), alpha=0.25), [4.0, 3.0])


def test_admd_discriminator_wants_classes_of_real_and_the_last_class_of_fake():
    real, fake = (RNG.normal(size=(6, 3, 6)).astype(np.float32) for _ in range(2))
    actual = jax.jit(losses.admd_discriminator)(real, fake, LABELS)
    p_real, p_fake = softmax(real), softmax(fake)
    expected = [[-np.log(p_real[b, t, LABELS[b]]) - np.log(p_fake[b, t, 5]) for t in range(3)] for b in range(6)]
    close(actual, expected)


def test_admd_objectives_and_their_gradients():
    """Non-saturating: softmax - onehot(y). Minimax, + log p_K: p-weighted, and blind to the true class."""
    fake = RNG.normal(size=(6, 6)).astype(np.float32)
    p = softmax(fake)
    close(losses.admd_hallucination(fake, LABELS), -np.log(p[np.arange(6), LABELS]))
    close(losses.admd_hallucination(fake, LABELS, objective="minimax"), np.log(p[:, 5]))
    flipped = jax.grad(lambda f: losses.admd_hallucination(f, LABELS).sum())(jnp.array(fake))
    close(flipped, p - np.eye(6)[LABELS])
    literal = jax.grad(lambda f: losses.admd_hallucination(f, LABELS, objective="minimax").sum())(jnp.array(fake))
    close(literal, np.eye(6)[[5] * 6] - p)
    other = losses.admd_hallucination(fake, (LABELS + 1) % 5, objective="minimax")
    close(other, losses.admd_hallucination(fake, LABELS, objective="minimax"))
    with pytest.raises(ValueError, match="neither"):
        losses.admd_hallucination(fake, LABELS, objective="wasserstein")


def test_minimax_is_the_discriminators_fake_term_turned_round():
    fake = jnp.array(RNG.normal(size=(6, 6)).astype(np.float32))
    close(losses.admd_hallucination(fake, LABELS, objective="minimax"), -losses.admd_fake(fake))


def test_least_squares_of_the_sigmoid_and_its_gradient():
    """Real wants (1 - s)^2, fake s^2; d/dz (1 - s)^2 = -2 (1 - s) s (1 - s)."""
    logits = RNG.normal(0, 2, (6, 3, 1)).astype(np.float32)
    s = 1 / (1 + np.exp(-logits[..., 0]))
    close(jax.jit(losses.adversarial_real)(logits), (1 - s) ** 2)
    close(jax.jit(losses.adversarial_fake)(logits), s**2)
    gradient = jax.grad(lambda z: losses.adversarial_real(z).sum())(jnp.array(logits))
    close(gradient[..., 0], -2 * s * (1 - s) ** 2)


def test_logistic_is_the_binary_cross_entropy():
    logits = RNG.normal(0, 2, (6, 1)).astype(np.float32)
    s = 1 / (1 + np.exp(-logits[:, 0]))
    close(losses.adversarial_real(logits, objective="logistic"), -np.log(s))
    close(losses.adversarial_fake(logits, objective="logistic"), -np.log(1 - s))
    far = jnp.array([[-200.0]])
    close(losses.adversarial_real(far, objective="logistic"), 200.0)  # no infinity of a logarithm of zero
    with pytest.raises(ValueError, match="neither"):
        losses.adversarial_fake(logits, objective="hinge")
