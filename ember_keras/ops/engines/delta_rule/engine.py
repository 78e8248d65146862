"""The public function of the delta rule engine."""

import keras
from keras import ops

from ember_keras.ops import counting
from ember_keras.ops.engines import cache, checks, chunks, decays
from ember_keras.ops.engines.delta_rule import chunked
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.delta_rule)
def delta_rule(
    q,
    k,
    v,
    beta,
    log_decay=None,
    *,
    erase=None,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """Linear attention whose state unlearns what it recalled before it learns.

    ``S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T``, ``o_t = S_t^T q_t``, with
    ``a_t = exp(log_decay_t)``: DeltaNet (arXiv 2406.06484) without a decay, Gated DeltaNet
    (arXiv 2412.06464, equation 10) with one a head, Kimi Delta Attention (arXiv 2510.26692,
    equation 1) with one a channel. With ``erase=(r, w)`` it is the general form of RWKV-7
    (arXiv 2503.14456): ``S_t = diag(a_t) S_{t-1} - w_t r_t^T S_{t-1} + b_t k_t v_t^T``.

    A long input is cut into chunks of 64 positions: matrix products inside, one matrix product a
    chunk between, memory linear in the length. The arithmetic is float32 for float16, bfloat16
    and float32 inputs. The state stays bounded where keys have length 1 and ``0 <= b_t <= 2``.

    Args:
        q: tensor ``(B, T, H, K)``; no scale is applied.
        k: tensor ``(B, T, H, K)``.
        v: tensor ``(B, T, H, V)``.
        beta: tensor ``(B, T, H)``, b, or None for 1.
        log_decay: tensor ``(B, T, H)``, one decay a head, or ``(B, T, H, K)``, one a channel, at
            most 0; or None for no decay.
        erase: pair of tensors ``(B, T, H, K)`` or None: r, what is read out of the state before its
            decay, and w, where that is taken away.
        initial_state: tensor ``(B, H, K, V)`` or None for zeros.
        return_state: bool. Also return the state after this chunk, float32.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: the
            state passes them unchanged, and their outputs are 0.
        segment_ids: int tensor ``(B, T)``. The state starts anew where another run of equal ids
            begins. The past belongs to the first run, the state after is that of the last.

    Returns:
        ``o`` ``(B, T, H, V)`` in v's dtype, or ``(o, state)``.

    Example:

    >>> import numpy as np
    >>> q, k, v = np.random.normal(size=(3, 2, 100, 4, 8)).astype("float32")
    >>> k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    >>> o, state = delta_rule(q, k, v, beta=None, return_state=True)
    >>> tuple(o.shape), tuple(state.shape)
    ((2, 100, 4, 8), (2, 4, 8, 8))
    """
    q = checks.floating("q", q, "(B, T, H, K)")
    time, dtype = checks.static("q", q, 1), q.dtype
    given = {"q": q, "k": k, "v": v, "beta": beta, "log_decay": log_decay}
    if erase is not None:
        if not isinstance(erase, tuple | list) or len(erase) != 2:
            raise ValueError(
                f"Received erase of type {type(erase).__name__}; expected a pair (r, w) of tensors "
                "(B, T, H, K): what is read out, and where it is taken away."
            )
        given |= {"erase[0]": erase[0], "erase[1]": erase[1]}
    given = _check(given)
    line = timeline(q, mask, segment_ids)
    tensors = {name: checks.wide(x) for name, x in given.items()}
    if line.mask is not None:
        # What stands at padding may be anything: it is gone before it is multiplied.
        tensors = {name: cache.keep(x, line.mask) for name, x in tensors.items()}
    shape = (q.shape[0], int(q.shape[2]), int(q.shape[3]), int(given["v"].shape[3]))
    if initial_state is None:
        state = ops.zeros((ops.shape(q)[0], *shape[1:]), tensors["q"].dtype)
    else:
        state = checks.state(initial_state, shape, "(B, H, K, V)")
    form = _step if time == 1 else _chunked
    o, state = form(tensors, state, line)
    if line.mask is not None:
        o = cache.keep(o, line.mask)
    o = ops.cast(o, dtype)
    return (o, state) if return_state else o


def _weighted(tensors):
    """Return the value times beta, and the log decay or None."""
    v, beta = tensors["v"], tensors.get("beta")
    return (v if beta is None else v * beta[..., None]), tensors.get("log_decay")


def _step(tensors, state, line):
    """Return one position, straight from the equation."""
    value, log_decay = _weighted(tensors)
    q, k, value = (x[:, 0] for x in (tensors["q"], tensors["k"], value))
    decay = None if log_decay is None else ops.exp(log_decay[:, 0])
    if decay is not None:
        decay = decay[..., None, None] if len(decay.shape) == 2 else decay[..., None]
    if "erase[0]" in tensors:
        found = ops.sum(tensors["erase[0]"][:, 0][..., None] * state, axis=2, keepdims=True)
        state = state if decay is None else decay * state
        state = state - tensors["erase[1]"][:, 0][..., None] * found
    else:
        state = state if decay is None else decay * state
        found = ops.sum(k[..., None] * state, axis=2)
        if "beta" in tensors:
            found = found * tensors["beta"][:, 0][..., None]
        value = value - found
    state = state + k[..., None] * value[..., None, :]
    return ops.sum(state * q[..., None], axis=2)[:, None], state


def _chunked(tensors, state, line):
    q, k = tensors["q"], tensors["k"]
    value, log_decay = _weighted(tensors)
    time = int(q.shape[1])
    size = chunks.size_for(time)
    if log_decay is None:
        log_decay = ops.zeros_like(q[..., 0])
    log_decay = ops.maximum(log_decay, ops.full_like(log_decay, decays.FLOOR))
    run = None if line.run is None else chunks.cut_runs(line.run, size)
    qc, kc, vc, lc = (chunks.cut(x, size) for x in (q, k, value, log_decay))
    if "erase[0]" in tensors:
        reads, writes = chunks.cut(tensors["erase[0]"], size), chunks.cut(tensors["erase[1]"], size)
        o, state = chunked.run(qc, -reads, writes, None, lc, state, run, extra=(kc, vc))
    else:
        reads = -k if "beta" not in tensors else -k * tensors["beta"][..., None]
        reads = chunks.cut(reads, size)
        o, state = chunked.run(qc, reads, kc, vc, lc, state, run, late=True)
    return chunks.join(o, time), state


def _check(given):
    """Return the tensors that were given, by name, with shapes that agree with q."""
    q, found = given["q"], {}
    for name, x in given.items():
        if x is None:
            continue
        letters = "(B, T, H, V)" if name == "v" else "(B, T, H, K)"
        if name in ("beta", "log_decay"):
            channel = name == "log_decay" and len(getattr(x, "shape", ())) == 4
            letters = "(B, T, H, K)" if channel else "(B, T, H)"
        x = checks.floating(name, x, letters)
        checks.same(f"the batch of {name}", x.shape[0], q.shape[0], "q")
        checks.same(f"the length T of {name}", x.shape[1], q.shape[1], "q")
        checks.same(f"the heads H of {name}", x.shape[2], q.shape[2], "q")
        if letters == "(B, T, H, K)":
            checks.same(f"the width K of {name}", x.shape[3], q.shape[3], "q")
        found[name] = x
    dtypes = {keras.backend.standardize_dtype(found[name].dtype) for name in "qkv"}
    if len(dtypes) > 1:
        raise TypeError(
            f"Received q, k and v of dtypes {', '.join(sorted(dtypes))}; expected one dtype. "
            "Cast them to the same dtype."
        )
    return found
