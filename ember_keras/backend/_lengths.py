"""Keras's training, testing and predicting functions, compiled for each length they meet.

On tensorflow Keras asks `tf.function` to relax the second shape it meets to an unknown one, and
reads batches of datasets whose lengths differ inside the compiled code. Layers that want to know
the length cannot be traced so. Here a batch is read outside and its shape stays what it is.
"""

import keras
from keras import tree


def each_length(model, kind):
    """Return a model's function of a `kind`, compiled once a shape, or Keras's where it serves.

    Args:
        model: keras.Model whose ``make_{kind}_function`` was called.
        kind: str, ``"train"``, ``"test"`` or ``"predict"``.
    """
    own = getattr(model, f"{kind}_function")
    if keras.config.backend() != "tensorflow" or getattr(own, "each_length", False):
        return own
    if model.run_eagerly or model.distribute_strategy.num_replicas_in_sync > 1:
        return own
    import tensorflow as tf

    step = tf.autograph.experimental.do_not_convert(getattr(model, f"{kind}_step"))
    compiled = tf.function(step, reduce_retracing=False, jit_compile=bool(model.jit_compile))

    def one(data):
        absent = tf.experimental.Optional
        data = tree.map_structure(lambda leaf: None if isinstance(leaf, absent) else leaf, data)
        return compiled(data)

    def steps(batches):
        results = None
        for _, data in zip(range(model.steps_per_execution), batches, strict=False):
            results = one(data)
        if results is None:
            raise StopIteration
        return results

    def predictions(batches):
        results = [one(data) for data in batches]
        return tree.map_structure(lambda *parts: tf.concat(parts, axis=0), *results)

    function = predictions if kind == "predict" else steps
    function.each_length = True  # A second call keeps what was compiled.
    return function
