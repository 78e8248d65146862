"""RWKV's time mixers beside their papers' equations, a position at a time in float64.

Law 4 holds the engines against their naive forms; this holds what stands around them.
"""

import numpy as np
import pytest

import ember_keras as ek

HEADS, WIDTH, TIME = 2, 16, 23
MIXED = ("receptance", "key", "value", "gate", "decay")


def weights_of(mixer, rng):
    """The mixer's weights by path, moved away from where they start."""
    found = {}
    for variable in mixer.weights:
        start = ek.backend.to_numpy(variable)
        variable.assign((start + 0.3 * rng.normal(size=start.shape)).astype("float32"))
        found[variable.path.partition("/")[2]] = ek.backend.to_numpy(variable).astype("float64")
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_head(x):
    return x.reshape(HEADS, -1)


def normed(o, w):
    o = o - o.mean(axis=-1, keepdims=True)
    o = o / np.sqrt((o**2).mean(axis=-1, keepdims=True) + 64e-5)
    return o * w["norm/scale"] + w["norm/bias"]


def shifted(x, change, w, generation):
    """What each map of a position sees: equation 3 of the first paper, 14 of it, 2 of the other."""
    if generation != 6:
        names = [name for name in w if name.startswith("mu_")]
        return {name.removeprefix("mu_"): x + change * w[name] for name in names}
    narrow = np.tanh((x + change * w["mu_x"]) @ w["mix_down/kernel"]).reshape(len(MIXED), -1)
    return {
        name: x + change * (w[f"mu_{name}"] + narrow[i] @ w["mix_up"][i])
        for i, name in enumerate(MIXED)
    }


def eagle_and_finch(mixed, state, w):
    r, k, v = (by_head(mixed[n] @ w[f"{n}/kernel"]) for n in ("receptance", "key", "value"))
    gate = mixed["gate"] @ w["gate/kernel"]
    rate = w["log_rate"]
    if "decay" in mixed:
        narrow = np.tanh(mixed["decay"] @ w["decay_down/kernel"])
        rate = rate + narrow @ w["decay_up/kernel"]
    decay, o = by_head(np.exp(-np.exp(rate))), np.zeros_like(v)
    for h in range(HEADS):
        update = np.outer(k[h], v[h])
        o[h] = r[h] @ (state[h] + w["bonus"][h][:, None] * update)
        state[h] = decay[h][:, None] * state[h] + update
    return gate * sigmoid(gate) * normed(o, w).reshape(-1)


def goose(mixed, state, w):
    r, k, v = (mixed[n] @ w[f"{n}/kernel"] for n in ("receptance", "key", "value"))
    gate = sigmoid(mixed["gate"] @ w["gate_down/kernel"]) @ w["gate_up/kernel"]
    rate = mixed["rate"] @ w["rate_down/kernel"] @ w["rate_up/kernel"]
    rate = sigmoid(w["rate_bias"] + rate)
    decay = np.tanh(mixed["decay"] @ w["decay_down/kernel"]) @ w["decay_up/kernel"]
    decay = by_head(np.exp(-np.exp(-0.5) * sigmoid(w["decay_bias"] + decay)))
    removed = by_head(k * w["removal_scale"])
    removed = removed / np.linalg.norm(removed, axis=-1, keepdims=True)
    k = by_head(k * (1 + (rate - 1) * w["replacement"]))
    r, v, rate = by_head(r), by_head(v), by_head(rate)
    o, own = np.zeros_like(v), np.zeros_like(v)
    for h in range(HEADS):
        # The paper's state is (V, K), and its transition stands to the right.
        move = np.diag(decay[h]) - np.outer(removed[h], rate[h] * removed[h])
        state[h] = state[h] @ move + np.outer(v[h], k[h])
        o[h] = state[h] @ r[h]
        own[h] = np.sum(r[h] * w["bonus"][h] * k[h]) * v[h]
    return gate * (normed(o, w) + own).reshape(-1)


def dove(x, before, sums, w):
    """One position of RWKV-4, whose sums are a numerator and a denominator; equations 11 to 17."""
    r, k, v = (
        (w[f"mu_{name}"] * x + (1 - w[f"mu_{name}"]) * before) @ w[f"{name}/kernel"]
        for name in ("receptance", "key", "value")
    )
    own, written = np.exp(w["bonus"] + k), np.exp(k)
    average = (sums[0] + own * v) / (sums[1] + own)
    sums[:] = np.exp(-np.exp(w["log_rate"])) * sums + np.array([written * v, written])
    return sigmoid(r) * average


def test_the_first_one_averages(rng, assert_close):
    mixer = ek.layers.RWKV4TimeMixer(inner_dim=24)
    x = rng.normal(size=(1, TIME, WIDTH)).astype("float32")
    mixer.build(x.shape)
    w = weights_of(mixer, rng)
    before, sums, expected = np.zeros(WIDTH), np.zeros((2, 24)), []
    for present in x[0].astype("float64"):
        expected.append(dove(present, before, sums, w) @ w["output_projection/kernel"])
        before = present
    y, state = mixer(x, return_state=True)
    assert_close(ek.backend.to_numpy(y)[0], np.array(expected), 1e-5)
    average = state["mixer"]["average"]
    assert {name: tuple(each.shape) for name, each in average.items()} == {
        name: (1, 24) for name in ("numerator", "denominator", "log_scale")
    }


def test_the_channel_mixer_of_the_first_one_takes_its_share_of_the_present(rng, assert_close):
    mixer = ek.layers.RWKV4ChannelMixer(hidden_dim=24)
    x = rng.normal(size=(1, 5, WIDTH)).astype("float32")
    mixer.build(x.shape)
    w = weights_of(mixer, rng)
    late = np.concatenate([np.zeros((1, WIDTH)), x[0, :-1]])
    r, k = (
        (w[f"mu_{name}"] * x[0] + (1 - w[f"mu_{name}"]) * late) @ w[f"{name}/kernel"]
        for name in ("receptance", "key")
    )
    expected = sigmoid(r) * (np.maximum(k, 0) ** 2 @ w["value/kernel"])
    assert_close(ek.backend.to_numpy(mixer(x))[0], expected, 1e-5)


@pytest.mark.parametrize("generation", (5, 6, 7))
def test_it_is_the_papers_equation(generation, rng, assert_close):
    mixer = ek.registry.sequence_mixers.build(f"rwkv{generation}_time_mixer", num_heads=HEADS)
    x = rng.normal(size=(1, TIME, WIDTH)).astype("float32")
    mixer.build(x.shape)
    w = weights_of(mixer, rng)
    state = np.zeros((HEADS, WIDTH // HEADS, WIDTH // HEADS))
    before, expected = np.zeros(WIDTH), []
    one = goose if generation == 7 else eagle_and_finch
    for present in x[0].astype("float64"):
        mixed = shifted(present, before - present, w, generation)
        expected.append(one(mixed, state, w) @ w["output_projection/kernel"])
        before = present
    assert_close(ek.backend.to_numpy(mixer(x))[0], np.array(expected), 1e-5)


@pytest.mark.parametrize("generation", (5, 6, 7))
def test_its_state_is_a_position_and_a_matrix_a_head(generation):
    name = f"rwkv{generation}_time_mixer"
    mixer = ek.registry.sequence_mixers.build(name, head_dim=4, inner_dim=24)
    mixer.build((None, None, WIDTH))
    state = mixer.initial_state(3)["mixer"]
    assert {key: tuple(x.shape) for key, x in state.items()} == {
        "shift": (3, WIDTH),
        "matrix": (3, 6, 4, 4),
    }


@pytest.mark.parametrize(
    "options", ({"head_dim": 0}, {"num_heads": 0}, {"inner_dim": 0}, {"epsilon": 0.0})
)
def test_what_cannot_work_is_refused(options):
    with pytest.raises(ValueError, match="received"):
        ek.layers.RWKV7TimeMixer(**options)
    with pytest.raises(ValueError, match="`RWKV4TimeMixer` received inner_dim=0"):
        ek.layers.RWKV4TimeMixer(inner_dim=0)
    with pytest.raises(ValueError, match="head_dim or inner_dim"):
        ek.layers.RWKV5TimeMixer(head_dim=5)(np.ones((1, 2, WIDTH), "float32"))
