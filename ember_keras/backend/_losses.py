"""What `compile` makes of a loss."""

from keras.src.trainers.compile_utils import CompileLoss


def replaced_loss(compiled, loss):
    """Return what `keras.Model.compile` would make of `loss`, with the weight of another.

    Args:
        compiled: what it has made of the model's own loss.
        loss: `keras.losses.Loss`.
    """
    return CompileLoss(loss, compiled._user_loss_weights)


def compiled_metrics(compiled):
    """Return ``(metric, is_weighted)`` for each metric that `keras.Model.compile` was given.

    Args:
        compiled: what it has made of them, built.
    """
    sets = ((compiled._flat_metrics, False), (compiled._flat_weighted_metrics, True))
    return [
        (metric, is_weighted)
        for flat, is_weighted in sets
        for each in flat
        if each
        for metric in each.metrics
    ]


def values_of(metric, y, y_pred):
    """Return what a `keras.metrics.MeanMetricWrapper` takes the mean of."""
    return metric._fn(y, y_pred, **metric._fn_kwargs)


def update_mean(metric, values, y_pred, weight):
    """Update a `keras.metrics.MeanMetricWrapper` with what it would take the mean of.

    Args:
        metric: the metric.
        values: what `values_of` gave.
        y_pred: tensor whose mask counts.
        weight: tensor or None, the weight of each value.
    """
    own = metric._fn, metric._fn_kwargs
    metric._fn, metric._fn_kwargs = lambda y, y_pred: values, {}
    try:
        metric.update_state(values, y_pred, weight)
    finally:
        metric._fn, metric._fn_kwargs = own
