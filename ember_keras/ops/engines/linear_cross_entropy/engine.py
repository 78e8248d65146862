"""The public function of a head and its cross-entropy."""

import keras
from keras import ops

from ember_keras.ops.engines import checks
from ember_keras.ops.engines.linear_cross_entropy import chunked
from ember_keras.ops.tensor.nests import wrap


@wrap
def linear_cross_entropy(x, w, targets, *, bias=None, chunk=None, logit_cap=None):
    """The cross-entropy of each position's logits `x w^T`, which are never there all at once.

    ``loss_t = log(sum_v exp(l_tv)) - l_t,target`` with ``l_t = w x_t + bias``, capped where asked.
    For a head over many tokens: the logits of `chunk` positions of each row are made, used and
    dropped, and made again for the gradient, so that memory grows with `chunk` in place of T
    (Wijmans et al. 2024, arXiv 2411.09009, section 4). Sums are float32.

    Args:
        x: tensor ``(B, T, D)``, what the head reads.
        w: tensor ``(V, D)``, in x's dtype: a row for each token.
        targets: int tensor ``(B, T)``, from 0 to V - 1.
        bias: tensor ``(V,)`` or None.
        chunk: int >= 1 or None. The positions of each row whose logits are there at once; None for
            all of them.
        logit_cap: float > 0 or None. With one, logits are ``cap tanh(logits / cap)``.

    Returns:
        The loss of each position, ``(B, T)``, in float32 (float64 of float64).

    Example:

    >>> import numpy as np
    >>> x, w = np.zeros((2, 6, 3), "float32"), np.zeros((4, 3), "float32")
    >>> loss = linear_cross_entropy(x, w, np.zeros((2, 6), "int32"), chunk=2)
    >>> round(float(loss[0, 0]), 4), tuple(loss.shape)  # log(4)
    (1.3863, (2, 6))
    """
    x = checks.floating("x", x, "(B, T, D)")
    w = checks.floating("w", w, "(V, D)")
    checks.same("the width D of w", w.shape[1], x.shape[2], "x")
    targets = ops.convert_to_tensor(targets)
    if "int" not in keras.backend.standardize_dtype(targets.dtype):
        raise TypeError(
            f"Received targets of dtype {targets.dtype}; expected integers. Cast them to int32."
        )
    length = checks.static("x", x, 1)
    targets = checks.rows("targets", targets, x.shape[0], length, "int32")
    if bias is not None:
        bias = checks.floating("bias", bias, "(V,)")
        checks.same("the length V of bias", bias.shape[0], w.shape[0], "w")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(
            f"Received chunk = {chunk!r}; expected an integer of at least 1, or None for all "
            "positions at once."
        )
    if logit_cap is not None and logit_cap <= 0:
        raise ValueError(f"Received logit_cap = {logit_cap}; expected more than 0, or None.")
    given = [checks.wide(each) for each in (x, w, *(() if bias is None else (bias,)))]
    return chunked.run(*given, targets=targets, chunk=chunk or length, cap=logit_cap)
