"""The same mixers in other packages, for `benchmarks.mixers`: plain PyTorch, random weights.

Each peer is a function `(width, time) -> module`, with the sizes that our mixer has with no
arguments. Where `ember_keras.interop` converts it, its output is compared with that of our layer
that has its weights before it is timed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.common import TOLERANCE, difference, seconds, summary


@dataclasses.dataclass(frozen=True)
class Peer:
    """A module of another package that does what one of our mixers does."""

    mixer: str
    package: str
    note: str
    make: Callable[[int, int], Any]
    converter: str | None = None
    convertible: Callable[[Any, int, int], Any] = lambda module, width, time: module


def _transformers_mamba(width, time):
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(MambaConfig(hidden_size=width, num_hidden_layers=1), layer_idx=0)


def _transformers_mamba2(width, time, chunk):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    inner = 2 * width
    head = min(64, inner)
    config = Mamba2Config(
        hidden_size=width,
        num_hidden_layers=1,
        expand=2,
        head_dim=head,
        num_heads=inner // head,
        state_size=64,
        n_groups=1,
        chunk_size=chunk,
    )
    return Mamba2Mixer(config, layer_idx=0)


def _mambapy(width, time):
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=width, n_layers=1))


def _as_transformers(module, width, time):
    """The names and shapes of its weights are those of transformers."""
    peer = _transformers_mamba(width, time)
    peer.load_state_dict(module.state_dict())
    return peer


def _xlstm_mlstm(width, time):
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    config = mLSTMLayerConfig(
        embedding_dim=width, context_length=time, num_heads=4, proj_factor=1.0
    )
    if config._inner_embedding_dim != width:
        raise ValueError(f"its inner width is {config._inner_embedding_dim}, expected {width}")
    return mLSTMLayer(config)


def _xlstm_slstm(width, time):
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    config = sLSTMLayerConfig(
        embedding_dim=width,
        num_heads=4,
        backend="vanilla",
        dtype="float32",
        enable_automatic_mixed_precision=False,
    )
    return sLSTMLayer(config)


def _ncps_ltc(width, time):
    from ncps.torch import LTC
    from ncps.wirings import FullyConnected

    return LTC(width, FullyConnected(width))


def _ncps_cfc(width, time):
    from ncps.torch import CfC

    return CfC(width, width)


PEERS = {
    "transformers-mamba": Peer(
        "mamba", "transformers", "MambaMixer, slow path", _transformers_mamba, "transformers.mamba"
    ),
    "mambapy": Peer(
        "mamba",
        "mambapy",
        "MambaBlock, its parallel scan",
        _mambapy,
        "transformers.mamba",
        _as_transformers,
    ),
    "transformers-mamba2": Peer(
        "mamba2",
        "transformers",
        "Mamba2Mixer, slow path, chunk_size=256, its default",
        lambda width, time: _transformers_mamba2(width, time, 256),
        "transformers.mamba2",
    ),
    "transformers-mamba2-64": Peer(
        "mamba2",
        "transformers",
        "Mamba2Mixer, slow path, chunk_size=64, which takes less memory",
        lambda width, time: _transformers_mamba2(width, time, 64),
        "transformers.mamba2",
    ),
    "xlstm-mlstm": Peer(
        "mlstm",
        "xlstm",
        "mLSTMLayer, parallel form, proj_factor=1, so that its inner width is ours; its queries, "
        "keys and values are block-diagonal maps and cost less than ours",
        _xlstm_mlstm,
    ),
    "xlstm-slstm": Peer(
        "slstm", "xlstm", "sLSTMLayer, vanilla backend", _xlstm_slstm, "xlstm.slstm"
    ),
    "ncps-ltc": Peer("ltc", "ncps", "torch LTC, fully connected", _ncps_ltc, "ncps.ltc"),
    "ncps-cfc": Peer("cfc", "ncps", "torch CfC", _ncps_cfc, "ncps.cfc"),
}


def train(job):
    """The time of a training step of a peer, after a check. Runs in a worker, under torch."""
    import torch

    from benchmarks.mixer_work import WARM_STEPS, data

    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    peer = PEERS[job["peer"]]
    module = peer.make(job["width"], job["time"]).train()
    x, y = (torch.from_numpy(each) for each in data(job))
    checked = _check(peer, module, job, x[:2])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(_output(module(x)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    (first,) = seconds(step, 1)
    seconds(step, WARM_STEPS - 1)
    times = seconds(step, job["repeats"])
    if not all(loss == loss and abs(loss) != float("inf") for loss in losses):
        return {"error": "the loss is not finite"}
    return {**summary(times), "first": first, "checked": checked}


def _output(y):
    return y[0] if isinstance(y, tuple) else y


def _check(peer, module, job, x):
    """How its output was checked; raises where it is wrong."""
    import torch

    import ember_keras as ek

    with torch.no_grad():
        y = _output(module(x)).numpy()
        if y.shape != tuple(x.shape):
            raise ValueError(f"the output has the shape {y.shape}, expected {tuple(x.shape)}")
        difference(y, y)
        room, _, name = (peer.converter or "").partition(".")
        convert = getattr(getattr(ek.interop, room, None), name, None) if name else None
        if convert is None:
            return "finite, and of the right shape"
        ours = convert(peer.convertible(module, job["width"], job["time"]))
        off = difference(ek.backend.to_numpy(ours(x)), y)
    if off > TOLERANCE:
        raise ValueError(f"differs from our layer with its weights by {off:.1e} of the scale")
    return f"equal to ours with its weights, to {off:.0e} of the scale"
