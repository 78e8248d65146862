"""One backend's part of the matrix: `save FOLDER`, or `load FOLDER` of what every backend saved.

Saving writes, for each model, the two kinds of file, and what the model answers, keeps and does
next. Loading writes one report: how far each of the files is off.
"""

import json
import sys
from pathlib import Path

import ember_keras as ek  # isort: skip  # Before keras, which it teaches mlx.
import keras
import numpy as np

from ember_keras.models.saving import load_model, load_weights, save_model, save_weights

BACKEND = keras.backend.backend()
TRAINS = BACKEND != "numpy"
TOKENS = np.random.default_rng(1).integers(0, 16, (4, 13))
SERIES = np.random.default_rng(2).normal(size=(4, 13, 3)).astype("float32")


def language_model(**options):
    filters = [{"type": "fft_conv", "filter": kind} for kind in ("explicit", "implicit", "s4d")]
    blocks = ["hyena", "gated_mlp", {"type": "attention", "num_heads": 2}, *filters]
    return ek.models.CausalLM(vocab_size=16, blocks=blocks, **options)


def language_model_bfloat16():
    """Wide: the norm of few channels may be near zero, and makes any rounding large."""
    return language_model(width=32, dtype="mixed_bfloat16")


def functional():
    x = keras.Input((13, 3))
    y = keras.layers.Dense(8, activation="gelu")(x)
    y = y + ek.layers.Hyena()(y)
    y = ek.blocks.Block("attention", norm="layer_norm")(keras.layers.Dropout(0.1)(y))
    return keras.Model(x, keras.layers.Dense(2)(keras.ops.mean(y, axis=1)))


def stock():
    return keras.Sequential(
        [
            keras.Input((13, 3)),
            # A bias before a batch norm has no gradient but rounding, which Adam makes steps of.
            keras.layers.Conv1D(4, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.LSTM(4),
            keras.layers.Dense(2),
        ]
    )


def restorer():
    """A mixture, and a head in the embedding."""
    mixture = {"type": "mixture_of_experts", "num_experts": 4, "shared_expert": "dense"}
    return ek.models.MaskedLM(
        16, width=16, blocks=[{"type": "attention", "causal": False}, mixture]
    )


def forecaster():
    """Blocks of several mixers: in parallel, and several blocks in one."""
    hybrid = {"type": "hybrid_block", "mixers": ["lru", "rwkv4_time_mixer"]}
    blocks = [hybrid, {"type": "rwkv_block", "mixer": "min_gru"}]
    return ek.models.Forecaster(2, 3, [0.5, 0.9], width=8, blocks=blocks, from_last=True)


MODELS = {
    "language_model": (lambda: language_model(width=8, dropout=0.1), TOKENS, "tokens"),
    "language_model_bfloat16": (language_model_bfloat16, TOKENS, "tokens"),
    "classifier": (lambda: ek.models.SequenceClassifier(3, width=8), SERIES, "classes"),
    "regressor": (lambda: ek.models.SequenceRegressor(2, width=8), SERIES, "values"),
    "functional": (functional, SERIES, "values"),
    "stock": (stock, SERIES, "values"),
    "restorer": (restorer, TOKENS, "tokens"),
    "forecaster": (forecaster, SERIES, "quantiles"),
    "preset": (lambda: ek.models.presets.build("griffin-tiny", vocab_size=16), TOKENS, "tokens"),
}
NEXT_STEP = ("classifier", "stock")
"""Models without dropout, whose next training step every backend must take alike."""

TARGETS = {
    "tokens": (np.roll(TOKENS, -1, axis=1), "sparse_categorical_crossentropy"),
    "classes": (np.array([0, 1, 2, 0]), "sparse_categorical_crossentropy"),
    "values": (np.ones((4, 2), "float32"), "mse"),
    "quantiles": (np.ones((4, 2, 3), "float32"), "pinball"),
}


def compile_model(model, task):
    loss = TARGETS[task][1]
    if loss == "pinball":
        loss = ek.models.PinballLoss(model.quantiles)
    elif loss != "mse":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Eagerly: what is compared does not depend on it, and compiling takes minutes.
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.01), loss, run_eagerly=True)


def array(value):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))


def arrays(variables):
    """Copies, which a later step does not change."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def save(folder):
    keras.utils.set_random_seed(0)
    for name, (build, x, task) in MODELS.items():
        model = build()
        model(x)
        if TRAINS:
            compile_model(model, task)
            model.fit(x, TARGETS[task][0], epochs=2, batch_size=4, verbose=0)
        save_model(model, folder / f"{name}.keras")
        save_weights(model, folder / f"{name}.weights.h5")
        # Before the answer, which a mixture of experts keeps figures of.
        kept = {f"weight{i}": v for i, v in enumerate(arrays(model.weights))}
        kept["answer"] = answer(model, x)
        if TRAINS:
            kept |= {f"optimizer{i}": v for i, v in enumerate(arrays(model.optimizer.variables))}
        if TRAINS and name in NEXT_STEP:
            model.train_on_batch(x, TARGETS[task][0])
            kept |= {f"next{i}": v for i, v in enumerate(arrays(model.weights))}
        np.savez(folder / f"{name}.npz", **kept)


def answer(model, x):
    model.run_eagerly = True
    return array(model.predict(x, verbose=0))


def error(actual, expected):
    scale = max(1e-6, float(np.max(np.abs(expected), initial=0.0)))
    return float(np.max(np.abs(np.asarray(actual, "float64") - expected), initial=0.0)) / scale


def of_kind(kept, kind):
    return [kept[key] for key in kept.files if key.startswith(kind)]


def differ(variables, kept, kind):
    """How many variables are not exactly what was saved."""
    pairs = zip(arrays(variables), of_kind(kept, kind), strict=True)
    return sum(not np.array_equal(loaded, saved) for loaded, saved in pairs)


def load(folder):
    report = {}
    for saver in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for name, (build, x, task) in MODELS.items():
            found = report.setdefault(saver, {}).setdefault(name, {})
            kept = np.load(folder / saver / f"{name}.npz")
            fresh = build()
            fresh(x)
            load_weights(fresh, folder / saver / f"{name}.weights.h5")
            found[".weights.h5"] = error(answer(fresh, x), kept["answer"])
            model = load_model(folder / saver / f"{name}.keras")
            found["weights"] = differ(model.weights, kept, "weight")
            found[".keras"] = error(answer(model, x), kept["answer"])
            if not TRAINS or saver == "numpy":
                continue
            found["optimizer"] = differ(model.optimizer.variables, kept, "optimizer")
            if name in NEXT_STEP:
                model.train_on_batch(x, TARGETS[task][0])
                after = arrays(model.weights)
                found["next step"] = max(map(error, after, of_kind(kept, "next")))
    (folder / f"{BACKEND}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    action, folder = sys.argv[1], Path(sys.argv[2])
    if action == "save":
        (folder / BACKEND).mkdir()
        save(folder / BACKEND)
    else:
        load(folder)
