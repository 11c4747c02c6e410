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


def test_admd_smooths_the_labels_of_real_features_alone():
    real = RNG.normal(size=(6, 6)).astype(np.float32)
    p = softmax(real)
    expected = -0.9 * np.log(p[np.arange(6), LABELS]) - 0.1 * np.log(p).mean(-1)
    close(losses.admd_real(real, LABELS, label_smoothing=0.1), expected)


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


FRAMES, MADE = RNG.normal(size=(4, 3, 5, 2)).astype(np.float32), RNG.normal(size=(4, 3, 5, 2)).astype(np.float32)


def test_squared_error_is_a_mean_over_an_example():
    close(jax.jit(losses.squared_error)(MADE, FRAMES), np.square(MADE - FRAMES).reshape(4, -1).mean(1))
    with pytest.raises(ValueError, match="differ"):
        losses.squared_error(MADE, FRAMES[:, :2])


def test_reverse_huber_is_linear_below_a_fifth_of_the_largest_error_and_quadratic_above():
    def by_hand(predictions, targets, share):
        size = np.abs(predictions - targets)
        c = share * size.max()
        return np.mean([x if x <= c else (x * x + c * c) / (2 * c) for x in size.ravel().tolist()])

    expected = [by_hand(p, t, 0.2) for p, t in zip(MADE, FRAMES, strict=True)]
    close(jax.jit(losses.reverse_huber)(MADE, FRAMES), expected)
    # The two parts meet at c with slope 1: of errors 1 and 0.2 with c = 0.2, (1 + 0.04) / 0.4 and 0.2.
    close(losses.reverse_huber(np.array([[1.0, 0.2]]), np.zeros((1, 2))), [(2.6 + 0.2) / 2])
    close(losses.reverse_huber(3 * MADE, 3 * FRAMES), 3 * np.array(expected))
    close(losses.reverse_huber(FRAMES, FRAMES), np.zeros(4))


def test_reverse_hubers_gradient_is_that_of_its_two_parts():
    errors = np.array([[1.0, -0.5, 0.1, -0.05]], np.float32)
    gradient = jax.jit(jax.grad(lambda x: losses.reverse_huber(x, jnp.zeros_like(x)).sum()))(errors)
    close(gradient, np.array([[1.0 / 0.2, -0.5 / 0.2, 1.0, -1.0]]) / 4)
    assert np.isfinite(jax.grad(lambda x: losses.reverse_huber(x, x + 0.0).sum())(errors)).all()


@pytest.mark.parametrize("soften", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_soft_divergence_is_kullback_and_leiblers(soften, squared):
    options = {"temperature": 3.0, "soften_student": soften, "temperature_squared": squared}
    actual = jax.jit(functools.partial(losses.soft_divergence, **options))(LOGITS, TEACHER)
    soft, student = softmax(TEACHER / 3), softmax(LOGITS / (3 if soften else 1))
    close(actual, (soft * np.log(soft / student)).sum(-1) * (9 if squared else 1), 1e-4)
    close(losses.soft_divergence(TEACHER / 3, TEACHER, temperature=3.0), np.zeros(6))


def test_the_faster_modality_is_held_back_by_peng_et_als_factor():
    labels, mask = np.append(LABELS[:4], [-1, 2]), np.array([1, 1, 1, 1, 1, 0.0])
    pace = jax.jit(functools.partial(losses.learning_pace, alpha=0.5))
    score = [softmax(x)[np.arange(4), LABELS[:4]].sum() for x in (LOGITS, TEACHER)]
    fast, slow = (LOGITS, TEACHER) if score[0] > score[1] else (TEACHER, LOGITS)
    close(pace(fast, slow, labels, mask), 1 - np.tanh(0.5 * max(score) / min(score)))
    close(pace(slow, fast, labels, mask), 1.0)
    gradient = jax.grad(lambda x: losses.learning_pace(x, slow, labels, mask, alpha=0.5))(fast)
    close(gradient, np.zeros_like(fast))


def test_an_example_without_a_label_has_no_hard_loss():
    known = np.array([True, True, False, True, False, True])
    labels = np.where(known, LABELS, -1)
    for smoothing in (0.0, 0.1):
        whole = losses.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
        close(losses.cross_entropy(LOGITS, labels, label_smoothing=smoothing), np.where(known, whole, 0))
    gradient = jax.grad(lambda x: losses.cross_entropy(x, labels).sum())(LOGITS)
    close(gradient[~known], 0.0 * LOGITS[~known])
