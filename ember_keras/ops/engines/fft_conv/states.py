"""Checks of a past that is given to the long convolution."""

from ember_keras.ops.engines.fft_conv import relaxed


def check(state, batch, width):
    """Raise `ValueError` where a state is one of other rows or channels, or its parts disagree.

    Args:
        state: dict, of any kind; what is not a part of a state is not looked at.
        batch: int or None, the rows ``B`` of the chunk.
        width: int, its channels ``D``.
    """
    if not isinstance(state, dict):
        return
    signal = ("(B, M, D)", (batch, None, width))
    expected = {"window": ("(B, taps - 1, D)", signal[1]), "input": signal}
    expected["length"] = expected["stale"] = ("(B,)", (batch,))
    if relaxed.is_relaxed(state):
        parts = relaxed.sizes(relaxed.slots_of(state))
        for name in ("blocks", "flows"):
            if len(state[name]) != len(parts[name]):
                raise ValueError(
                    f"Received an initial_state with {len(state[name])} {name}; expected "
                    f"{len(parts[name])}, as many as its taps want. {_MEND}"
                )
        for name, sizes in parts.items():
            held = state[name] if name in ("blocks", "flows") else [state[name]]
            for x, size in zip(held, sizes, strict=True):
                _same(name, x, "(B, M, D)", (batch, size, width))
        expected.pop("input")
    for name, (letters, shape) in expected.items():
        if name in state:
            _same(name, state[name], letters, shape)


_MEND = "Pass the state that an earlier call returned, or None for an empty past."


def _same(name, x, letters, shape):
    found = tuple(getattr(x, "shape", ()))
    agrees = len(found) == len(shape) and all(
        None in (have, want) or have == want for have, want in zip(found, shape, strict=True)
    )
    if not agrees:
        raise ValueError(
            f"Received an initial_state whose {name} has the shape {found}; expected {letters} = "
            f"{shape}, with the rows B and the channels D of u. {_MEND}"
        )
