"""The public function of the grouped matrix product engine."""

import keras
from keras import ops

from ember_keras.ops import counting, kernels
from ember_keras.ops.engines import checks
from ember_keras.ops.kernels import row_blocks
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.grouped_matmul)
def grouped_matmul(x, w, offsets):
    """Products of sorted rows, each group of rows with its own matrix.

    ``y_m = x_m W_e`` for the rows ``offsets[e] <= m < offsets[e + 1]`` of group ``e``; rows before
    the first group and after the last are 0. It is what a mixture of experts needs once tokens are
    sorted by expert (MegaBlocks, Gale et al. 2022, arXiv 2211.15841, section 4): its cost is that
    of the rows that are in a group, however many groups there are.

    Sums of float16 and bfloat16 products are float32 where the kernel has them so.

    Args:
        x: tensor ``(M, D)``, rows sorted by group.
        w: tensor ``(E, D, F)``, a matrix a group.
        offsets: int tensor ``(E + 1,)``, not decreasing, from 0 to M: where each group begins,
            and where the last one ends.

    Returns:
        ``y`` ``(M, F)`` in x's dtype.

    Example:

    >>> import numpy as np
    >>> x, w = np.ones((5, 3), "float32"), np.ones((2, 3, 4), "float32")
    >>> y = grouped_matmul(x, w, np.array([0, 2, 5]))
    >>> tuple(y.shape)
    (5, 4)
    """
    x = checks.floating("x", x, "(M, D)")
    w = checks.floating("w", w, "(E, D, F)")
    offsets = _offsets(offsets, w)
    checks.same("the width D of w", w.shape[1], x.shape[1], "x")
    dtypes = [keras.backend.standardize_dtype(each.dtype) for each in (x, w)]
    if dtypes[0] != dtypes[1]:
        raise TypeError(
            f"Received x and w of dtypes {' and '.join(dtypes)}; expected one dtype. "
            "Cast them to the same dtype."
        )
    kernel = kernels.choose(kernels.request("grouped_matmul", {"x": x, "w": w}))
    return (row_blocks.run if kernel is None else kernel.run)(x, w, offsets)


def _offsets(offsets, w):
    offsets = ops.convert_to_tensor(offsets)
    if "int" not in keras.backend.standardize_dtype(offsets.dtype):
        raise TypeError(
            f"Received offsets of dtype {offsets.dtype}; expected integers. Cast them to int32."
        )
    if len(offsets.shape) != 1 or offsets.shape[0] not in (None, w.shape[0] + 1):
        raise ValueError(
            f"Received offsets of shape {tuple(offsets.shape)}; expected (E + 1,) = "
            f"({w.shape[0] + 1},): where each group of w begins, and where the last one ends."
        )
    return ops.cast(offsets, "int32")
