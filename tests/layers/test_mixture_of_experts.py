"""Mixtures of experts: what routers choose, what experts see, what is added to the loss."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.layers.moe import mixture, statistics
from ember_keras.layers.moe.routers import base

import keras  # isort: skip - under mlx after ember_keras
from keras import ops  # isort: skip

WIDTH = 6


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _built(router, num_experts=4, top_k=2, **options):
    layer = ek.registry.routers.build(router, **options)
    layer.connect(num_experts, top_k)
    layer.build((None, None, WIDTH))
    return layer


def _arrays(routing):
    return {k: ek.backend.to_numpy(v) for k, v in routing._asdict().items() if ops.is_tensor(v)}


def _input(rng, batch=2, time=5):
    return rng.normal(size=(batch, time, WIDTH)).astype("float32")


def _logits(router, x):
    return x @ ek.backend.to_numpy(router.kernel)


@pytest.mark.parametrize("expert", ["mlp", "gated_mlp", "dense"])
def test_all_experts_of_a_uniform_router_are_their_mean(expert, rng, assert_close):
    uniform = {"type": "softmax", "scale": 0.0}
    layer = ek.layers.MixtureOfExperts(3, 3, expert, router=uniform)
    x = _input(rng)
    y = ek.backend.to_numpy(layer(x))
    single = ek.layers.MixtureOfExperts(1, 1, expert)
    single(x)
    each = []
    for e in range(3):
        for to, given in zip(single.stacks[0].weights, layer.stacks[0].weights, strict=True):
            to.assign(ek.backend.to_numpy(given)[e : e + 1])
        each.append(ek.backend.to_numpy(single(x)))
    assert_close(y, np.mean(each, axis=0), 1e-5)


@pytest.mark.parametrize("name", ["mlp", "gated_mlp", "dense"])
def test_one_expert_is_the_channel_mixer_of_its_name(name, rng, assert_close):
    x = _input(rng)
    layer = ek.layers.MixtureOfExperts(1, 1, {"type": name, "use_bias": True})
    alone = ek.registry.channel_mixers.build(name, use_bias=True)
    layer(x), alone(x)
    given = [np.asarray(rng.normal(size=w.shape), "float32") for w in layer.stacks[0].weights]
    layer.stacks[0].set_weights(given)
    alone.set_weights([each[0] for each in given])
    assert_close(ek.backend.to_numpy(layer(x)), ek.backend.to_numpy(alone(x)), 1e-5)


def test_the_lowest_of_equal_experts_wins():
    scores = np.array([[1.0, 3.0, 3.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0]], "float32")
    found = ek.backend.to_numpy(base.top_k(ops.convert_to_tensor(scores), 3))
    assert found.tolist() == [[1, 2, 4], [0, 1, 2]]


def test_the_same_logits_choose_the_same_experts_on_every_backend():
    router = _built("softmax", num_experts=16, top_k=4)
    logits = np.random.default_rng(3).integers(-4, 4, size=(1, 6, 16)).astype("float32")
    experts = ek.backend.to_numpy(router._choose(ops.convert_to_tensor(logits)).experts)
    assert experts.tolist() == np.argsort(-logits, axis=-1, kind="stable")[..., :4].tolist()


@pytest.mark.parametrize("normalize", [True, False])
def test_softmax(normalize, rng, assert_close):
    router, x = _built("softmax", normalize=normalize), _input(rng)
    found, p = _arrays(router(x)), _softmax(_logits(router, x))
    order = np.argsort(-p, axis=-1)[..., :2]
    weights = np.take_along_axis(p, order, -1)
    if normalize:
        weights = weights / weights.sum(-1, keepdims=True)
    assert (found["experts"] == order).all() and found["chosen"].all()
    assert_close(found["weights"], weights, 1e-5)


def test_noise_is_there_in_training_alone(rng, assert_close):
    router, x = _built("noisy_top_k", seed=1), _input(rng)
    still = _arrays(router(x))
    assert_close(still["logits"], _logits(router, x), 1e-5)
    moved = _arrays(router(x, training=True))
    assert np.abs(moved["logits"] - still["logits"]).max() > 0.1


@pytest.mark.trains
def test_the_sigmoid_router_moves_its_bias_against_the_load(rng, assert_close):
    router, x = _built("sigmoid", bias_step=0.1), _input(rng)
    router.balance.assign(np.array([5.0, 0.0, 0.0, 0.0], "float32"))
    found, scores = _arrays(router(x, training=True)), 1 / (1 + np.exp(-_logits(router, x)))
    assert (found["experts"][..., 0] == 0).all()
    weights = np.take_along_axis(scores, found["experts"], -1)  # Without the bias.
    assert_close(found["weights"], weights / weights.sum(-1, keepdims=True), 1e-5)
    count = np.bincount(found["experts"].ravel(), minlength=4)
    expected = np.array([5.0, 0, 0, 0]) + 0.1 * np.sign(count.mean() - count)
    assert_close(ek.backend.to_numpy(router.balance), expected, 1e-6)
    router(x)
    assert_close(ek.backend.to_numpy(router.balance), expected, 1e-6)


@pytest.mark.trains
@pytest.mark.parametrize("num_experts", [3, 5, 6])
def test_an_even_load_leaves_the_bias_of_the_sigmoid_router(num_experts):
    """A mean of whole numbers that is not rounded to them has a sign of its own."""
    router = _built("sigmoid", num_experts=num_experts, top_k=1)
    router.kernel.assign(4 * np.eye(WIDTH, num_experts))
    for each in range(1, 14):
        router(np.eye(num_experts, WIDTH, dtype="float32").repeat(each, 0)[None], training=True)
        assert not ek.backend.to_numpy(router.balance).any(), f"{each} tokens an expert"


@pytest.mark.parametrize("most", [None, 3])
def test_dynamic_takes_the_fewest_that_reach_the_mass(most, rng, assert_close):
    router = _built("dynamic", num_experts=5, mass=0.7, max_experts=most, scale=2.0)
    x = _input(rng)
    found, p = _arrays(router(x)), _softmax(_logits(router, x))
    ordered = -np.sort(-p, axis=-1)[..., : most or 5]
    needed = np.minimum((np.cumsum(ordered, -1) < 0.7).sum(-1) + 1, most or 5)
    assert (found["chosen"].sum(-1) == needed).all()
    assert 1 < needed.mean() < (most or 5)
    assert_close(found["weights"], ordered, 1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_experts_choose_exactly_as_many_tokens(packed, rng):
    router, x = _built("expert_choice", num_experts=3, top_k=2), _input(rng, 1, 9)
    mask = np.array([[1, 1, 0, 1, 1, 1, 1, 1, 0]], bool)
    ids = np.array([[4] * 5 + [7] * 4]) if packed else None
    taken = _arrays(router(x, mask=mask, segment_ids=ids))["taken"]
    scores = np.log(_softmax(_logits(router, x)))[0]
    for part in [[0, 1, 3, 4], [5, 6, 7]] if packed else [[0, 1, 3, 4, 5, 6, 7]]:
        for e in range(3):
            count = (2 * len(part) + e) // 3
            best = np.array(part)[np.argsort(-scores[part, e], kind="stable")[:count]]
            assert sorted(best) == [t for t in part if taken[0, t, e]]
    assert not taken[0, ~mask[0]].any() and taken.sum() == 14


def test_equal_tokens_are_taken_from_the_first_on():
    router = _built("expert_choice", num_experts=2, top_k=1)
    taken = _arrays(router(np.ones((1, 6, WIDTH), "float32")))["taken"][0]
    assert taken.sum(0).tolist() == [3, 3] and taken[:3].all()


def test_equal_vectors_have_equal_experts_by_hash(rng):
    router, x = _built("hash", num_experts=5, top_k=3), _input(rng, 1, 200)
    x[0, 100:] = x[0, :100]
    experts = _arrays(router(x))["experts"][0]
    assert (experts[:100] == experts[100:]).all()
    assert all(len(set(row)) == 3 for row in experts.tolist())
    assert np.bincount(experts[:, 0], minlength=5).min() > 10


def test_sinkhorn_shares_tokens_out_in_training(rng):
    router, x = _built("sinkhorn", top_k=1, iterations=30, scale=1.0), _input(rng, 4, 30)
    towards = ek.backend.to_numpy(router.kernel)[:, 1]  # One of the experts.
    x += 6 * towards / np.linalg.norm(towards)
    alone, shared = (_arrays(router(x, training=t))["experts"] for t in (False, True))
    counts = [np.bincount(e.ravel(), minlength=4) for e in (alone, shared)]
    assert counts[0].max() > 80 and counts[1].max() < 50


@pytest.mark.parametrize("router", ek.registry.routers.names())
def test_every_router_takes_float64_or_refuses_it(router, rng):
    def routed():
        layer = ek.layers.MixtureOfExperts(4, router=router, dtype="float64")
        mask = np.array([[True, True, False, True]] * 2)
        return layer(rng.normal(size=(2, 4, WIDTH)), mask=mask, training=True)

    if ek.backend.capabilities().float64:
        assert ek.backend.to_numpy(routed()).dtype == "float64"
        return
    with pytest.raises(ValueError, match="received dtype='float64'"):
        routed()


def test_soft_slots_are_mixtures_of_all_real_tokens(rng, assert_close):
    layer = ek.layers.MixtureOfExperts(3, router={"type": "soft", "slots_per_expert": 2})
    x, mask = _input(rng, 1, 5), np.array([[True, True, True, False, True]])
    layer(x)
    mixing = layer.router(x, mask=mask).mixing
    logits = _logits(layer.router, x)[0]
    dispatch = np.zeros((6, 5))
    dispatch[:, mask[0]] = _softmax(logits[mask[0]].T)
    assert_close(ek.backend.to_numpy(mixing.dispatch)[0], dispatch, 1e-5)
    assert_close(ek.backend.to_numpy(mixing.combine)[0], _softmax(logits), 1e-5)
    slots = ops.convert_to_tensor((dispatch @ x[0]).astype("float32"))
    bounds = ops.convert_to_tensor(np.array([0, 2, 4, 6], "int32"))
    made = ek.backend.to_numpy(layer.stacks[0](slots, offsets=bounds))
    y = ek.backend.to_numpy(layer(x, mask=mask))
    assert_close(y[0, mask[0]], (_softmax(logits) @ made)[mask[0]], 1e-5)


def _outputs_of_experts(layer, x):
    """`(E, B, T, D)`: each expert of one stack on every token."""
    rows, count = x.reshape(-1, x.shape[-1]), layer.stacks[0].count
    bounds = np.arange(count + 1) * len(rows)
    every = layer.stacks[0](
        ops.convert_to_tensor(np.tile(rows, (count, 1))),
        offsets=ops.convert_to_tensor(bounds.astype("int32")),
    )
    return ek.backend.to_numpy(every).reshape(count, *x.shape)


@pytest.mark.parametrize("combiner", ["weighted_sum", "top_1", "concatenation", "attention"])
def test_combiners(combiner, rng, assert_close):
    layer = ek.layers.MixtureOfExperts(4, combiner=combiner)
    x = _input(rng)
    y = ek.backend.to_numpy(layer(x))
    each, found = _outputs_of_experts(layer, x), _arrays(layer.router(x))
    index = found["experts"].transpose(2, 0, 1)[..., None]
    own = np.take_along_axis(each, index, 0)  # (K, B, T, D)
    weights = found["weights"].transpose(2, 0, 1)[..., None]
    parts = {w.path.split("/")[-2]: ek.backend.to_numpy(w) for w in layer.combiner.weights}
    if combiner == "weighted_sum":
        expected = (own * weights).sum(0)
    elif combiner == "top_1":
        expected = own[0] * weights[0]
    elif combiner == "concatenation":
        expected = np.concatenate(list(own * weights), -1) @ parts["projection"]
    else:
        score = ((x @ parts["query"]) * (own @ parts["key"])).sum(-1, keepdims=True) / 32**0.5
        expected = (own * _softmax(score + np.log(weights), 0)).sum(0)
    assert_close(y, expected, 1e-4)


def test_experts_of_many_kinds_and_whole_sequences(rng, assert_close):
    kinds = ["gated_mlp", "gated_mlp", "hyena", "dense", {"type": "attention", "num_heads": 2}]
    layer = ek.layers.MixtureOfExperts(experts=kinds, top_k=3)
    x = _input(rng)
    y = ek.backend.to_numpy(layer(x))
    assert [stack.count for stack in layer.stacks] == [2, 1] and len(layer.whole) == 2
    found, expected = _arrays(layer.router(x)), np.zeros_like(x)
    rows = ops.convert_to_tensor(x.reshape(-1, WIDTH))
    for number in range(5):
        if number in layer._numbers:
            out = layer.whole[layer._numbers.index(number)](x)
        else:
            stack = layer.stacks[0 if number < 2 else 1]
            bounds = [0] * (stack.count + 1)
            for at in range(number - (0 if number < 2 else 3) + 1, stack.count + 1):
                bounds[at] = len(x) * x.shape[1]
            out = stack(rows, offsets=ops.convert_to_tensor(np.array(bounds, "int32")))
        gate = (found["weights"] * (found["experts"] == number)).sum(-1, keepdims=True)
        expected += gate * ek.backend.to_numpy(out).reshape(x.shape)
    assert_close(y, expected, 1e-4)


@pytest.mark.parametrize("num_experts", [4, 32])
def test_the_work_is_that_of_the_chosen_experts(num_experts, rng, monkeypatch):
    layer = ek.layers.MixtureOfExperts(num_experts, 2)
    x = _input(rng, 2, 7)
    layer(x)
    from ember_keras.layers.moe.experts import stacked

    seen = []

    def product(x, w, offsets):
        seen.append((int(x.shape[0]), ek.backend.to_numpy(offsets)[-1]))
        return ek.ops.grouped_matmul(x, w, offsets)

    monkeypatch.setenv("EMBER_KERNELS", "portable")
    monkeypatch.setattr(stacked, "grouped_matmul", product)
    mask = np.ones((2, 7), bool)
    mask[:, 4:] = False
    layer(x, mask=mask)
    assert seen == [(28, 16)] * 2  # Of 14 tokens with 2 places; 8 of them are real.


def test_padding_is_routed_nowhere(rng):
    layer = ek.layers.MixtureOfExperts(4)
    mask = np.array([[True] * 3 + [False] * 2, [False] * 5])
    layer(_input(rng), mask=mask, training=False)
    routing = layer.router(_input(rng), mask=mask)
    chosen = np.broadcast_to(mask[..., None], (2, 5, 2))
    load = statistics.expert_loads(routing, ops.convert_to_tensor(chosen), 4, mask)
    count = np.bincount(ek.backend.to_numpy(routing.experts)[mask].ravel(), minlength=4)
    np.testing.assert_allclose(ek.backend.to_numpy(load), count / count.sum(), atol=1e-6)


def _losses(layer):
    return [float(ek.backend.to_numpy(each)) for each in layer.losses]


def test_losses_are_those_of_the_real_tokens(rng, assert_close):
    layer = ek.layers.MixtureOfExperts(4, load_balance=0.5, z_loss=0.25)
    x = _input(rng) * 3
    mask = np.array([[True] * 5, [True, False, True, False, False]])
    layer(x, mask=mask)
    assert _losses(layer) == []  # In training alone.
    layer(x, mask=mask, training=True)
    logits = _logits(layer.router, x)[mask]
    p, order = _softmax(logits), np.argsort(-logits, axis=-1)[:, :2]
    load = np.bincount(order.ravel(), minlength=4) / order.size
    balance = 4 * np.sum(load * p.mean(0))
    z = np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
    assert_close(_losses(layer), [0.5 * balance, 0.25 * z], 1e-5)
    other = x.copy()
    other[~mask] = 100.0
    layer(other, mask=mask, training=True)
    assert_close(_losses(layer), [0.5 * balance, 0.25 * z], 1e-5)


def test_an_even_load_has_a_balance_of_one():
    p = ops.full((1, 8, 4), 0.25)
    routing = base.Routing(probabilities=p)
    assert float(statistics.load_balance(routing, ops.full((4,), 0.25), None)) == pytest.approx(1)


def test_routers_that_balance_themselves_have_no_balance_loss(rng):
    for router in ("sigmoid", "expert_choice", "soft", "sinkhorn"):
        layer = ek.layers.MixtureOfExperts(4, router=router)
        layer(_input(rng), training=True)
        assert len(_losses(layer)) == 1
    layer = ek.layers.MixtureOfExperts(4, router="hash")
    layer(_input(rng), training=True)
    assert _losses(layer) == []


def test_the_first_tokens_keep_their_expert_where_there_is_no_room(rng, assert_close):
    layer = ek.layers.MixtureOfExperts(2, 1, capacity_factor=0.5, router="hash")
    x = np.broadcast_to(_input(rng)[:1, :1], (2, 4, WIDTH)).copy()  # All to one expert.
    whole = ek.backend.to_numpy(layer(x))
    assert (np.abs(whole).max(-1) > 0).all()  # In prediction nothing is dropped.
    y = ek.backend.to_numpy(layer(x, training=True))
    assert_close(y.reshape(8, -1)[:2], whole.reshape(8, -1)[:2], 1e-6)
    assert not y.reshape(8, -1)[2:].any()
    use = ek.backend.to_numpy(layer.use)
    assert_close(use[2], 0.75, 1e-6)
    assert sorted(use[:2]) == [0, 1]


@pytest.mark.trains
def test_padding_makes_no_room(rng):
    """The same tokens lose the same experts, however much padding stands behind them."""
    layer = ek.layers.MixtureOfExperts(2, 1, "dense", capacity_factor=1.0)
    x = _input(rng, 1, 16)
    x[..., :2] = np.where(np.arange(16) < 6, [[1], [0]], [[0], [1]]).T  # Six to the first expert.
    layer(x)
    layer.router.kernel.assign(np.eye(WIDTH, 2) * 9)
    mask = np.arange(16)[None] < 8
    alone = ek.backend.to_numpy(layer(x[:, :8], training=True))
    dropped = ek.backend.to_numpy(layer.use)[-2]
    padded = ek.backend.to_numpy(layer(x, mask=mask, training=True))[:, :8]
    assert dropped == 0.25 and ek.backend.to_numpy(layer.use)[-2] == dropped
    np.testing.assert_array_equal(padded.any(-1), alone.any(-1))


@pytest.mark.parametrize(
    "router", ["softmax", {"type": "sigmoid", "bias_step": 0.0}, "sinkhorn", "dynamic"], ids=str
)
def test_experts_of_equal_weights_are_chosen_by_their_number(router, rng):
    """In training too, where `sinkhorn` sums over tokens: in one order for equal experts."""
    router = _built(router, num_experts=6, top_k=3)
    kernel = np.round(rng.normal(size=(WIDTH, 6))) / 2
    kernel[:, 2] = kernel[:, 5] = kernel[:, 0]
    router.kernel.assign(kernel.astype("float32"))
    for time in (1, 11, 50):
        x = np.round(rng.normal(size=(2, time, WIDTH)) * 2).astype("float32") / 2
        for training in (False, True):
            experts = _arrays(router(x, training=training))["experts"]
            for row in experts.reshape(2 * time, -1).tolist():
                equal = [expert for expert in row if expert in (0, 2, 5)]
                assert equal == [0, 2, 5][: len(equal)]


@pytest.mark.parametrize("expert", ["gated_mlp", "hyena"])
@pytest.mark.parametrize("router", ek.registry.routers.names())
def test_an_empty_batch_changes_nothing(router, expert, rng):
    if router == "soft" and expert == "hyena":
        with pytest.raises(ValueError, match="slots have no order in time"):
            ek.layers.MixtureOfExperts(4, 2, expert, router=router)
        return
    layer = ek.layers.MixtureOfExperts(4, 2, expert, router=router)
    x = _input(rng)
    layer(x)
    before = [ek.backend.to_numpy(w) for w in layer.weights if "int" not in w.dtype]
    for training in (False, ek.backend.capabilities().trains):
        assert tuple(layer(x[:0], training=training).shape) == (0, 5, WIDTH)
    after = [ek.backend.to_numpy(w) for w in layer.weights if "int" not in w.dtype]
    assert all((a == b).all() for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("router", sorted({*ek.registry.routers.names()} - {"hash"}))
def test_a_router_that_diverged_shows(router, rng):
    layer = ek.layers.MixtureOfExperts(4, router=router)
    x = _input(rng)
    layer(x)
    layer.router.kernel.assign(np.full(layer.router.kernel.shape, np.nan))
    assert np.isnan(ek.backend.to_numpy(layer(x))).all()


def test_an_expert_of_another_width_is_refused(rng):
    layer = ek.layers.MixtureOfExperts(2, expert=keras.layers.Dense(2 * WIDTH))
    with pytest.raises(ValueError, match="gives 12 channels for 6"):
        layer(_input(rng, 1, 2))


def test_one_layer_is_not_two_experts():
    each = ek.layers.MLP()
    with pytest.raises(ValueError, match="the same layer as two experts"):
        ek.layers.MixtureOfExperts(experts=[each, each])


def _model():
    return ek.models.SequenceRegressor(
        width=8, blocks=["mixture_of_experts", {"type": "moe", "router": "sigmoid"}]
    )


def _plain_model():
    inputs = keras.Input((6, 8))
    y = ek.blocks.Block("moe")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(y)))


@pytest.mark.trains
@pytest.mark.parametrize("make, width, layers", [(_model, 1, 2), (_plain_model, 8, 1)])
def test_fit_shows_what_routers_do(make, width, layers, rng):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", "mse")
    x, y = rng.normal(size=(8, 6, width)), rng.normal(size=(8, 1))
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    shown = {part: [k for k in history if k.endswith(part)] for part in mixture.METRICS}
    assert all(len(names) == layers for names in shown.values()), shown
    assert all(1 <= v <= 8 for name in shown["load"] for v in history[name])
    assert all(v == 0 for name in shown["dropped"] for v in history[name])
    assert all(0 < v < np.log(8) + 1e-3 for name in shown["entropy"] for v in history[name])
    assert all(np.isfinite(v) for v in model.evaluate(x, y, verbose=0, return_dict=True).values())


@pytest.mark.trains
def test_losses_reach_the_loss_of_fit(rng):
    """Of every layer, compiled, and once for each batch where gradients are gathered."""
    x, y = rng.normal(size=(8, 6, 8)).astype("float32"), np.zeros((8, 6, 8), "float32")
    found = {}
    for weight in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        mixer = {"type": "moe", "load_balance": weight, "z_loss": 0.0, "top_k": 1}
        model = ek.models.SequenceModel([mixer, mixer])
        optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
        model.compile(optimizer, "mse")
        history = model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0).history
        found[weight] = history["loss"][0]
        if weight:
            model(x[:4], training=True)
            parts = [float(ek.backend.to_numpy(each)) for each in model.losses]
            model(x[4:], training=True)
            parts += [float(ek.backend.to_numpy(each)) for each in model.losses]
    assert len(parts) == 4
    np.testing.assert_allclose(found[0.5] - found[0.0], sum(parts) / 2, rtol=1e-3)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_experts": 2, "top_k": 3}, "top_k=3 of 2 experts"),
        ({"num_experts": 0}, "num_experts=0"),
        ({"experts": []}, "expected a list of at least one"),
        ({"experts": ["mlp", "dense"], "num_experts": 3}, "expected as many"),
        ({"router": "soft", "combiner": "attention"}, "expected the combiner 'weighted_sum'"),
        ({"router": "soft", "experts": ["hyena", "mlp"]}, "slots have no order"),
        ({"router": "expert_choice", "capacity_factor": 1.0}, "expected None"),
        ({"capacity_factor": 0.0}, "capacity_factor"),
        ({"router": {"type": "dynamic", "mass": 1.5}}, "mass=1.5"),
        ({"router": "softmx"}, "Did you mean 'softmax'"),
        ({"expert": "mlpp"}, "Did you mean 'mlp'"),
    ],
)
def test_what_cannot_work_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ek.layers.MixtureOfExperts(**options)


def test_names_of_mad_lab_are_known():
    layer = ek.registry.channel_mixers.build("moe-mlp", num_experts=5, active_experts=3)
    assert (layer.num_experts, layer.top_k, layer.stacks[0].gate) == (5, 3, "geglu")
    with pytest.raises(ValueError, match="hidden_dim"):
        ek.registry.channel_mixers.build("moe-mlp", dim_inner=16)
