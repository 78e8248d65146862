"""`torch.func.vmap` of an operator of ours: a call for each row."""

import torch


def register_rows(name):
    """Let `torch.func.vmap` go through an operator by a call for each row.

    Without a rule torch does the same, and warns.

    Args:
        name: str, such as ``"ember_keras::grouped_rows"``. Its results are tensors.
    """
    space, own = name.split("::")
    operator = getattr(getattr(torch.ops, space), own)

    def rule(info, axes, *arguments):
        if info.batch_size < 1:
            raise ValueError(f"vmap of {own} received no rows, expected at least one.")
        found = [
            operator(*(_row(x, axis, at) for x, axis in zip(arguments, axes, strict=True)))
            for at in range(info.batch_size)
        ]
        if isinstance(found[0], torch.Tensor):
            return torch.stack(found), 0
        parts = tuple(torch.stack(part) for part in zip(*found, strict=True))
        return parts, (0,) * len(parts)

    torch.library.register_vmap(name, rule)


def _row(x, axis, at):
    return x if axis is None else x.select(axis, at)
