"""The losses of hallucination networks and of adversarial modality distillation, one function an equation.

Every function takes arrays and returns one number per example (`[B]`), or per frame where the input is per frame
(`[...]`); reduction over the batch, masks and weights are the caller's (one place: `hallujax.training.step`).
Logarithms, sigmoids and sums run in float32 whatever the compute type of the arguments.

Sources. ECCV 2018: N. Garcia, P. Morerio, V. Murino, "Modality Distillation with Multiple Stream Networks for Action
Recognition". ADMD: the same authors, "Learning with Privileged Information via Adversarial Discriminative Modality
Distillation", TPAMI 2019. The equations are cited as they stand in V. Murino's talk at ROBOVIS 2024 ("slides");
"released code" is the authors' TensorFlow code for the two papers.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Cross-entropy of integer labels, `-log softmax(logits)[labels]`.

    Args:
      logits: `[..., K]`.
      labels: class ids; their shape is broadcast to `logits.shape[:-1]` from the left, so `[B]` labels go with
        `[B, K]` clip logits and with `[B, T, K]` frame logits alike. Where one is negative there is no label, and the
        loss is zero.
      label_smoothing: mass spread evenly over the K classes.

    Returns:
      `[...]`, nats.

    Raises:
      ValueError: if the labels' shape is no leading part of the logits'.
    """
    logits = logits.astype(jnp.float32)
    labels = _labels_like(labels, logits)
    known = labels >= 0
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, labels, 0))
    if label_smoothing != 0.0:
        uniform = -jax.nn.log_softmax(logits).mean(-1)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
    return jnp.where(known, loss, 0.0)


def soft_cross_entropy(
    logits: Array,
    teacher_logits: Array,
    *,
    temperature: float = 1.0,
    soften_student: bool = False,
    temperature_squared: bool = False,
) -> Array:
    """Cross-entropy of the teacher's softened prediction, `l(s, softmax(f_s(x)))` with `s = softmax(f_t(x*) / T)`.

    Args:
      logits: the student's `f_s(x)`, `[..., K]`.
      teacher_logits: `f_t(x*)`, `[..., K]`.
      temperature: `T > 0`, softens the teacher.
      soften_student: divide the student's logits by `T` too (the released code; the slides do not).
      temperature_squared: multiply by `T^2` (Hinton et al. 2015; the released NYUD code), which keeps the
        gradient of the hard labels' order when both sides are softened.

    Returns:
      `[...]`, nats. Its minimum over the student is the entropy of `s`, not zero.

    Raises:
      ValueError: if the two have different shapes (say, a teacher of other classes).
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {logits.shape} and teacher logits {teacher_logits.shape} differ: "
            "both networks must know the same classes"
        )
    student = logits.astype(jnp.float32)
    if soften_student:
        student = student / temperature
    soft_labels = jax.nn.softmax(teacher_logits.astype(jnp.float32) / temperature)
    loss = optax.losses.softmax_cross_entropy(student, soft_labels)
    return loss * temperature**2 if temperature_squared else loss


def soft_divergence(
    logits: Array,
    teacher_logits: Array,
    *,
    temperature: float = 1.0,
    soften_student: bool = False,
    temperature_squared: bool = False,
) -> Array:
    """`soft_cross_entropy` less its smallest value, the entropy of the soft labels: the divergence `KL(s || student)`.

    Args, raises: as `soft_cross_entropy`.

    Returns:
      `[...]`, nats; zero where the student says what the teacher does.
    """
    cross = soft_cross_entropy(
        logits,
        teacher_logits,
        temperature=temperature,
        soften_student=soften_student,
        temperature_squared=temperature_squared,
    )
    softened = teacher_logits.astype(jnp.float32) / temperature
    entropy = optax.losses.softmax_cross_entropy(softened, jax.nn.softmax(softened))
    return cross - (entropy * temperature**2 if temperature_squared else entropy)


def generalized_distillation(
    logits: Array,
    teacher_logits: Array,
    labels: Array,
    *,
    imitation: float = 0.5,
    temperature: float = 1.0,
    soften_student: bool = False,
    temperature_squared: bool = False,
) -> Array:
    """Generalized distillation, the slides' `L_GD = (1 - lambda) l(y, softmax(f_s(x))) + lambda l(s, softmax(f_s(x)))`.

    Lopez-Paz et al., "Unifying distillation and privileged information", 2016; ECCV 2018 step 3.
    `lambda` is `imitation`, `T` is `temperature`, `f_t` the teacher, which saw the privileged modality.

    Args:
      logits: the student's clip logits `f_s(x)`, `[B, K]`.
      teacher_logits: `f_t(x*)`, `[B, K]`.
      labels: class ids `[B]`.
      imitation: weight of the teacher's soft labels, in [0, 1].
      temperature, soften_student, temperature_squared: see `soft_cross_entropy`.

    Returns:
      `[B]`, nats.
    """
    soft = soft_cross_entropy(
        logits,
        teacher_logits,
        temperature=temperature,
        soften_student=soften_student,
        temperature_squared=temperature_squared,
    )
    return (1.0 - imitation) * cross_entropy(logits, labels) + imitation * soft


def hallucination(features: Array, teacher_features: Array, *, scale: float = 1.0) -> Array:
    """Hallucination loss, the slides' `L_hall(l) = lambda_l || sigmoid(A_l^d) - sigmoid(A_l^h) ||_2^2`.

    Hoffman et al., CVPR 2016; ECCV 2018 step 3. `lambda_l` is `scale`. The released code sums over the batch as well
    and multiplies by 0.01 with clips in batches of 5: that is `scale=0.05` under a mean over the batch.

    Args:
      features: the student's activations `A_l^h` at layer l, `[B, ...]`.
      teacher_features: the teacher's `A_l^d`, same shape.
      scale: factor on the sum.

    Returns:
      `[B]`: the sum over all axes but the first.

    Raises:
      ValueError: if the shapes differ.
    """
    if features.shape != teacher_features.shape:
        raise ValueError(f"features {features.shape} and teacher features {teacher_features.shape} differ")
    difference = jax.nn.sigmoid(features.astype(jnp.float32)) - jax.nn.sigmoid(teacher_features.astype(jnp.float32))
    return scale * jnp.sum(jnp.square(difference), axis=tuple(range(1, difference.ndim)))


def privileged_distillation(distillation: Array, hallucination: Array, *, alpha: float = 0.5) -> Array:
    """The total of ECCV 2018's step 3, the slides' `L = (1 - alpha) L_GD + alpha L_hall`.

    Args:
      distillation: `L_GD` per clip, `[B]`.
      hallucination: `L_hall` per clip, `[B]`.
      alpha: weight of the feature term, in [0, 1].

    Returns:
      `[B]`.
    """
    return (1.0 - alpha) * distillation + alpha * hallucination


def admd_real(real_logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """The discriminator's term on the teacher's features: `-log p_y(D(E_d(x_d)))`, target `[y || 0]`.

    Args:
      real_logits: `[..., K+1]`, class K means hallucinated.
      labels: class ids below K, broadcast from the left to `[...]`.
      label_smoothing: mass of the target spread evenly over the K+1 classes. Smoothing this term alone (one-sided:
        Salimans et al., NeurIPS 2016) keeps D from becoming sure of what is real; neither source has it.

    Returns:
      `[...]`, nats.
    """
    return cross_entropy(real_logits, labels, label_smoothing=label_smoothing)


def admd_fake(fake_logits: Array) -> Array:
    """The discriminator's term on hallucinated features: `-log p_K(D(H(x_rgb)))`, target `[zeros(K) || 1]`.

    Args:
      fake_logits: `[..., K+1]`.

    Returns:
      `[...]`, nats.
    """
    return -jax.nn.log_softmax(fake_logits.astype(jnp.float32))[..., -1]


def admd_discriminator(real_logits: Array, fake_logits: Array, labels: Array) -> Array:
    """The discriminator's objective in ADMD: `-log p_y(real) - log p_K(fake)`.

    The slides' min over theta_D: real depth features belong to their class, hallucinated ones to class K. (The
    released action code halves it; Adam does not notice.)

    Args:
      real_logits: D on the teacher's features, `[..., K+1]`.
      fake_logits: D on the hallucinated features, `[..., K+1]`.
      labels: class ids below K, broadcast from the left to `[...]`.

    Returns:
      `[...]`, nats.
    """
    return admd_real(real_logits, labels) + admd_fake(fake_logits)


def admd_hallucination(
    fake_logits: Array, labels: Array, *, objective: Literal["non_saturating", "minimax"] = "non_saturating"
) -> Array:
    """The hallucination network's objective in ADMD.

    Args:
      fake_logits: D on the hallucinated features, `[..., K+1]`.
      labels: class ids below K, broadcast from the left to `[...]`.
      objective: `non_saturating`: `-log p_y(fake)`, the flipped label of the released code: it rewards features that
        D takes for real ones *of the true class*. `minimax`: `+log p_K(fake)`, the slides' max over theta_H
        written as a descent: it holds no true-class term.

    Returns:
      `[...]`, nats; never positive for `minimax`.

    Raises:
      ValueError: for another objective.
    """
    if objective == "non_saturating":
        return cross_entropy(fake_logits, labels)
    if objective == "minimax":
        return -admd_fake(fake_logits)
    raise ValueError(f"objective {objective!r} is neither 'non_saturating' nor 'minimax'")


def realness(logits: Array) -> Array:
    """A discriminator's log-odds that features are real, `logsumexp_{k<K} z_k - z_K`; without classes its one logit.

    Args:
      logits: `[..., K+1]`, class K means hallucinated; or `[..., 1]`, positive for real.

    Returns:
      `[...]`.
    """
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return jax.nn.logsumexp(logits[..., :-1], axis=-1) - logits[..., -1]


def gradient_penalty(gradients: Array) -> Array:
    """How steep the discriminator is at real features: `R_1 = 1/2 || grad r(E_d(x_d)) ||_2^2`, `r` its `realness`.

    Mescheder, Geiger and Nowozin, ICML 2018, eq. 9, whose factor gamma is the term's weight. Neither source has it.

    Args:
      gradients: of `realness` by the features, `[..., D]`.

    Returns:
      `[...]`.
    """
    return 0.5 * jnp.sum(jnp.square(gradients.astype(jnp.float32)), axis=-1)


def adversarial_real(logits: Array, *, objective: Literal["least_squares", "logistic"] = "least_squares") -> Array:
    """How far a binary discriminator is from calling features real.

    Its term on the teacher's features; on hallucinated ones it is the hallucination network's (non-saturating)
    objective.

    Args:
      logits: `[..., 1]`, positive for real.
      objective: `least_squares`: `(1 - sigmoid(z))^2`, of the sigmoid as in the released NYUD code (Mao et al. 2017
        have it of the logit); `logistic`: `-log sigmoid(z)` (Goodfellow et al. 2014).

    Returns:
      `[...]`.

    Raises:
      ValueError: for another objective.
    """
    return _adversarial(logits, objective)


def adversarial_fake(logits: Array, *, objective: Literal["least_squares", "logistic"] = "least_squares") -> Array:
    """How far a binary discriminator is from calling features hallucinated: `sigmoid(z)^2` or `-log(1 - sigmoid(z))`.

    Args, returns and raises: as `adversarial_real`.
    """
    return _adversarial(-logits, objective)


def _adversarial(logits: Array, objective: str) -> Array:
    wrong = -logits.astype(jnp.float32)[..., 0]
    if objective == "least_squares":
        return jnp.square(jax.nn.sigmoid(wrong))
    if objective == "logistic":
        return jax.nn.softplus(wrong)
    raise ValueError(f"objective {objective!r} is neither 'least_squares' nor 'logistic'")


def squared_error(predictions: Array, targets: Array) -> Array:
    """The mean of `(p - t)^2` over all axes but the first: the cross-modal autoencoder's loss.

    Args:
      predictions: `[B, ...]`.
      targets: same shape.

    Returns:
      `[B]`.

    Raises:
      ValueError: if the shapes differ.
    """
    return _mean(jnp.square(_difference(predictions, targets)))


def reverse_huber(predictions: Array, targets: Array, *, share: float = 0.2) -> Array:
    """The reverse Huber loss, berHu: the mean of `B(p - t)` over all axes but the first.

    Laina et al., "Deeper depth prediction with fully convolutional residual networks", 3DV 2016, eq. 2: `B(x) = |x|`
    where `|x| <= c`, else `(x^2 + c^2) / (2 c)`. Their `c` is a fifth of the largest `|x|` in the batch; here of
    the largest in the example, so that an example's loss does not depend on its neighbours. It is a number, not a
    function of the predictions, to the gradient.

    Args:
      predictions: `[B, ...]`.
      targets: same shape.
      share: `c` as a share of the largest difference.

    Returns:
      `[B]`.

    Raises:
      ValueError: if the shapes differ.
    """
    size = jnp.abs(_difference(predictions, targets))
    largest = jax.lax.stop_gradient(size.max(axis=tuple(range(1, size.ndim)), keepdims=True))
    c = jnp.where(largest > 0, share * largest, 1.0)
    return _mean(jnp.where(size <= c, size, (jnp.square(size) + jnp.square(c)) / (2 * c)))


def _difference(predictions: Array, targets: Array) -> Array:
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {predictions.shape} and targets {targets.shape} differ")
    return predictions.astype(jnp.float32) - targets.astype(jnp.float32)


def _mean(values: Array) -> Array:
    return values.mean(axis=tuple(range(1, values.ndim)))


def learning_pace(logits: Array, other_logits: Array, labels: Array, mask: Array, *, alpha: float) -> Array:
    """On-the-fly gradient modulation: the factor that slows the modality that learns faster than the other.

    Peng et al., "Balanced multimodal learning via on-the-fly gradient modulation", CVPR 2022, eqs. 8 to 10:
    `k = 1 - tanh(alpha rho)` where `rho > 1`, else 1, with `rho` the ratio of the probabilities of the true class, each
    modality's own, summed over the batch.

    Args:
      logits: the modality's own part of the fused logits, `[B, K]`.
      other_logits: the other's.
      labels: class ids `[B]`; examples with a negative one do not count.
      mask: `[B]`, zero for examples that do not count.
      alpha: how much is taken from the faster one, not negative.

    Returns:
      A scalar in [0, 1], a number and not a function of the logits to the gradient.
    """
    known = mask * (labels >= 0)

    def score(own):
        probability = jax.nn.softmax(own.astype(jnp.float32))
        return jnp.sum(known * jnp.take_along_axis(probability, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0])

    ratio = jax.lax.stop_gradient(score(logits) / jnp.maximum(score(other_logits), jnp.finfo(jnp.float32).tiny))
    return jnp.where(ratio > 1, 1.0 - jnp.tanh(alpha * ratio), 1.0)


def _labels_like(labels: Array, logits: Array) -> Array:
    """Labels broadcast over the trailing example axes (frames, say) of `[..., K]` logits."""
    shape = logits.shape[:-1]
    if labels.shape != shape[: labels.ndim]:
        raise ValueError(f"labels {labels.shape} do not lead the logits' example axes {shape}")
    return jnp.broadcast_to(labels.reshape(labels.shape + (1,) * (len(shape) - labels.ndim)), shape)
