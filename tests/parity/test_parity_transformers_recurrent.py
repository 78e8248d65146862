"""Mamba, RG-LRU and RWKV-4 beside transformers: same weights, same outputs, steps and gradients."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTH, TIME, BATCH = 16, 19, 2


def _random(module):
    """The module with random weights: rates around 1, 2, .. and norms around 1."""
    torch.manual_seed(0)
    for name, weight in module.named_parameters():
        with torch.no_grad():
            noise = torch.randn_like(weight) * 0.3
            if "A_log" in name:
                noise = noise + torch.log(torch.arange(1.0, weight.shape[1] + 1))
            weight.copy_(noise + 1.0 if "norm" in name else noise)
    return module.eval()


def _mamba():
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(
        hidden_size=WIDTH, state_size=5, num_hidden_layers=1, use_bias=True
    )
    return MambaMixer(config, 0), config


def _falcon_mamba():
    from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer

    config = transformers.FalconMambaConfig(
        hidden_size=WIDTH, state_size=5, num_hidden_layers=1, mixer_rms_eps=1e-3
    )
    return FalconMambaMixer(config, 0, initialize_mixer_weights=False), config


def _jamba():
    from transformers.models.jamba.modeling_jamba import JambaMambaMixer

    config = transformers.JambaConfig(
        hidden_size=WIDTH, mamba_d_state=5, mamba_dt_rank=3, num_hidden_layers=1,
        attn_layer_offset=1, attn_layer_period=2, num_attention_heads=2, num_key_value_heads=2,
        rms_norm_eps=1e-3,
    )  # fmt: skip
    return JambaMambaMixer(config, 0), config


class Scan:
    """A Mamba mixer with its cache."""

    def __init__(self, make):
        module, self.config = make()
        self.module = _random(module)
        self.layer = ek.interop.transformers.mamba(self.module)

    def whole(self, x):
        return self.module(x)

    def chunks(self, x, cuts):
        cache = transformers.DynamicCache(config=self.config)
        return [self.module(part, cache) for part in torch.split(x, cuts, 1)]


class RecurrentGemma:
    """A recurrent block of RecurrentGemma, which keeps its state itself."""

    def __init__(self):
        from transformers.models.recurrent_gemma import modeling_recurrent_gemma as peer

        config = transformers.RecurrentGemmaConfig(
            hidden_size=WIDTH, lru_width=WIDTH, num_attention_heads=4, num_hidden_layers=3
        )
        self.module = _random(peer.RecurrentGemmaRecurrentBlock(config, 0))
        self.layer = ek.interop.transformers.rg_lru(self.module)

    def _call(self, x, start, use_cache):
        positions = torch.arange(start, start + x.shape[1])[None].expand(len(x), -1)
        return self.module(x, positions, None, use_cache)[0]

    def whole(self, x):
        return self._call(x, 0, False)

    def chunks(self, x, cuts):
        outputs, start = [], 0
        for part in torch.split(x, cuts, 1):
            outputs.append(self._call(part, start, True))
            start += part.shape[1]
        self._call(x, 0, False)  # Drops the state.
        return outputs


class RWKV4:
    """A time mixer of RWKV-4, whose state holds the last input and the average."""

    def __init__(self):
        from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

        config = transformers.RwkvConfig(hidden_size=WIDTH, num_hidden_layers=1)
        self.module = _random(RwkvSelfAttention(config, 0))
        self.layer = ek.interop.transformers.rwkv4(self.module)

    def whole(self, x):
        return self.module(x)[0]

    def chunks(self, x, cuts):
        rows = []  # Its step mixes rows up, so that each goes alone.
        for row in torch.split(x, 1):
            state = [torch.zeros(1, WIDTH, 1) for _ in range(5)]
            state[4] -= 1e30
            parts = torch.split(row, cuts, 1)
            rows.append(
                torch.cat([self.module(part, state, use_cache=True)[0] for part in parts], 1)
            )
        return [torch.cat(rows)]


PEERS = {
    "mamba": lambda: Scan(_mamba),
    "falcon_mamba": lambda: Scan(_falcon_mamba),
    "jamba": lambda: Scan(_jamba),
    "recurrent_gemma": RecurrentGemma,
    "rwkv4": RWKV4,
}


@pytest.fixture(params=PEERS)
def peer(request):
    return PEERS[request.param]()


def test_the_full_pass_and_its_gradient(peer, rng, assert_close):
    x = rng.normal(size=(BATCH, TIME, WIDTH)).astype("float32")
    weights = rng.normal(size=x.shape).astype("float32")
    theirs = torch.tensor(x, requires_grad=True)
    y = peer.whole(theirs)
    (gradient,) = torch.autograd.grad(torch.sum(y * torch.tensor(weights)), theirs)
    assert_close(ek.backend.to_numpy(peer.layer(x)), y.detach().numpy())
    if not ek.backend.capabilities().trains:
        return

    def scalar(x):
        return keras.ops.sum(peer.layer(x) * keras.ops.convert_to_tensor(weights))

    _, (ours,) = ek.backend.value_and_grad(scalar)(keras.ops.convert_to_tensor(x))
    assert_close(ek.backend.to_numpy(ours), gradient.numpy())


def test_a_prompt_and_steps(peer, rng, assert_close):
    x = rng.normal(size=(BATCH, TIME, WIDTH)).astype("float32")
    cuts = [TIME - 4, 1, 1, 1, 1]
    with torch.no_grad():
        theirs = torch.cat(peer.chunks(torch.tensor(x), cuts), 1).numpy()
    y, state = peer.layer(x[:, : cuts[0]], return_state=True)
    ours = [ek.backend.to_numpy(y)]
    for t in range(cuts[0], TIME):
        y, state = peer.layer.step(x[:, t], state)
        ours.append(ek.backend.to_numpy(y)[:, None])
    assert_close(np.concatenate(ours, 1), theirs)


def test_other_modules_are_refused():
    names = ("mamba", "rg_lru", "rwkv4")
    for convert in (getattr(ek.interop.transformers, name) for name in names):
        with pytest.raises(ValueError, match="expected the weights of the mixer"):
            convert(torch.nn.Linear(2, 2))
