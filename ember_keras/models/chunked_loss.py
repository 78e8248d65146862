"""Models whose cross-entropy never holds the logits of a whole batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from ember_keras import backend
from ember_keras.models.base import EmberModel
from ember_keras.ops import linear_cross_entropy
from ember_keras.ops.engines.linear_cross_entropy import chunked
from ember_keras.ops.kernels.loops import scan


class ChunkedLoss(EmberModel):
    """A model with a linear head, which `fit` and `evaluate` can run in chunks of positions.

    In a training or testing step of a model with a `loss_chunk` its call gives, in place of logits,
    what the head reads and the head's weights. The loss and the metrics make logits of these, a
    chunk at a time.
    """

    loss_chunk: int | None = None
    logit_cap: float | None = None
    _compile_loss: Any
    _gives_head_inputs = False
    _made_loss: tuple[Any, Any] = (None, None)

    def _take_loss_chunk(self, loss_chunk: int | None) -> None:
        wrong = isinstance(loss_chunk, bool) or not isinstance(loss_chunk, int) or loss_chunk < 1
        if loss_chunk is not None and wrong:
            raise ValueError(
                f"`{type(self).__name__}` received loss_chunk={loss_chunk!r}, expected an integer "
                "of at least 1, or None for the logits of all positions at once."
            )
        self.loss_chunk = loss_chunk

    def _head_weights(self) -> tuple[Any, ...] | None:
        """The weights of the head, `(V, D)`, and its bias `(V,)` where it has one.

        None where they are quantized: such a head gives its own logits, and is not trained.
        """
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_head_weights`.")

    def _through_head(self, hidden: Any, head: Callable[[Any], Any]) -> Any:
        """The logits, or in a step of a model with a `loss_chunk` what stands for them."""
        weights = self._head_weights() if self._gives_head_inputs else None
        if weights is None:
            # Under jax and mlx Keras calls a model in `fit` so that no mask is put on its output.
            return backend.with_mask(head(hidden), backend.mask_of(hidden))
        if self._compile_metrics is not None:
            # The metrics come after the optimizer, which under torch writes in place.
            weights = tuple(ops.copy(each) for each in weights)
        return (hidden, *weights)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own, without the logits of the whole batch where there is a `loss_chunk`."""
        with self._head_left_out():
            return super().train_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own, without the logits of the whole batch where there is a `loss_chunk`."""
        with self._head_left_out():
            return super().test_step(*args, **kwargs)

    @contextlib.contextmanager
    def _head_left_out(self) -> Iterator[None]:
        before = self._gives_head_inputs
        self._gives_head_inputs = self.loss_chunk is not None
        try:
            yield
        finally:
            self._gives_head_inputs = before

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras's own, of a chunk of positions at a time where there is a `loss_chunk`."""
        made = self._loss_of_positions()
        if made is None or not isinstance(y_pred, list | tuple):
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        loss, compiled = made
        y = _as_rows(y, y_pred[0])
        targets = ops.cast(y, "int32")
        if loss.ignore_class is not None:
            targets = ops.where(targets == loss.ignore_class, 0, targets)
        hidden, w, *bias = y_pred
        losses = linear_cross_entropy(
            hidden,
            w,
            targets,
            bias=bias[0] if bias else None,
            chunk=self.loss_chunk,
            logit_cap=self.logit_cap,
        )
        losses = backend.with_mask(losses, backend.mask_of(hidden))
        own, self._compile_loss = self._compile_loss, compiled
        try:
            return super().compute_loss(x, y, losses, sample_weight, training=training)
        finally:
            self._compile_loss = own

    def _loss_of_positions(self) -> tuple[Any, Any] | None:
        """The loss of given cross-entropies that is as the compiled one, and it compiled."""
        if self.loss_chunk is None or self._compile_loss is None:
            return None
        known, made = self._made_loss
        if known is not self._compile_loss:
            loss = _PositionLoss(_require_cross_entropy(self))
            made = _Pair(loss, backend.replaced_loss(self._compile_loss, loss))
            self._made_loss = (self._compile_loss, made)
        return made.loss, made.compiled

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's own, of a chunk of positions at a time where there is a `loss_chunk`."""
        if not isinstance(y_pred, list | tuple):
            return super().compute_metrics(x, y, y_pred, sample_weight)
        if self._compile_metrics is not None:
            self._update_in_chunks(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def _update_in_chunks(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        hidden, *head = (ops.stop_gradient(each) for each in y_pred)
        rows = {"y": _as_rows(y, hidden), "hidden": hidden}
        mask = backend.mask_of(y_pred[0])
        if mask is not None:
            rows["mask"] = mask
        if sample_weight is not None:
            rows["sample_weight"] = _as_rows(sample_weight, hidden)
        whole, size = self._compile_metrics, int(head[0].shape[0])
        if not whole.built:
            whole.build(rows["y"], keras.KerasTensor((*hidden.shape[:2], size), "float32"))
        given = backend.compiled_metrics(whole)
        means = [each for each in given if isinstance(each[0], keras.metrics.MeanMetricWrapper)]
        others = [each for each in given if each not in means]
        variables = [variable for metric, _ in others for variable in metric.variables]

        def turn(totals: Any, piece: dict[str, Any]) -> Any:
            shape = tuple(piece["hidden"].shape[:2])
            scores = chunked.logits(
                *(ops.cast(each, "float32") for each in (_flat(piece["hidden"]), *head)),
                cap=self.logit_cap,
            )
            scores = ops.reshape(scores, (-1, shape[1], size))
            scores = backend.with_mask(scores, piece.get("mask"))
            found = [_values(metric, piece["y"], scores) for metric, _ in means]
            left, after = list(totals) if others else [], []
            for metric, is_weighted in others:
                own, left = left[: len(metric.variables)], left[len(metric.variables) :]
                weight = piece.get("sample_weight") if is_weighted else None
                after += metric.stateless_update_state(own, piece["y"], scores, weight)
            totals = tuple(map(_read, after)) or totals
            return totals, tuple(found)

        start = tuple(map(_read, variables)) or ops.zeros(())
        totals, found = self._over_chunks(turn, start, rows)
        for variable, value in zip(variables, totals if others else (), strict=True):
            variable.assign(value)
        for (metric, is_weighted), (values, *counts) in zip(means, found, strict=True):
            place = backend.with_mask(ops.copy(values), mask)
            values = backend.with_mask(values, counts[0] if counts else None)
            weight = rows.get("sample_weight") if is_weighted else None
            backend.update_mean(metric, values, place, weight)

    def _over_chunks(self, turn: Any, totals: Any, rows: dict[str, Any]) -> tuple[Any, Any]:
        """The last totals, and what `turn` found at all positions `(B, T)`.

        The last chunk may be a shorter one.
        """
        names, length = tuple(rows), int(rows["hidden"].shape[1])
        chunk = self.loss_chunk or length
        whole, parts = length // chunk * chunk, []
        if whole:
            totals, found = scan(
                lambda totals, each: turn(totals, dict(zip(names, each, strict=True))),
                totals,
                tuple(_pieces(rows[name][:, :whole], chunk) for name in names),
            )
            found = keras.tree.map_structure(lambda x: ops.moveaxis(x, 0, 1), found)
            found = keras.tree.map_structure(lambda x: ops.reshape(x, (-1, whole)), found)
            parts.append(found)
        if whole < length:
            totals, found = turn(totals, {name: each[:, whole:] for name, each in rows.items()})
            parts.append(found)
        join = keras.tree.map_structure(lambda *each: ops.concatenate(each, axis=1), *parts)
        return totals, join


def _pieces(x: Any, chunk: int) -> Any:
    """Chunks `(n, B, C, ...)` of a tensor `(B, n C, ...)`."""
    x = ops.reshape(x, (-1, int(x.shape[1]) // chunk, chunk, *x.shape[2:]))
    return ops.moveaxis(x, 1, 0)


def _values(metric: Any, y: Any, scores: Any) -> tuple[Any, ...]:
    """What a metric takes the mean of, `(B, C)`, and which of it count where not all do."""
    values = backend.values_of(metric, y, scores)
    expected = tuple(scores.shape[:2])
    if tuple(values.shape) not in (expected, expected[:1] if expected[1] == 1 else expected):
        raise ValueError(
            f"Received the metric {metric.name!r}, which gives values of shape "
            f"{tuple(values.shape)} for positions {expected}; expected one a position, as with a "
            "loss_chunk each chunk is measured alone. Leave the metric out, or build the model "
            "with loss_chunk=None."
        )
    counts = backend.mask_of(values)
    parts = (values,) if counts is None else (values, counts)
    return tuple(ops.reshape(each, (-1, expected[1])) for each in parts)


def embedding_head(layer: Any) -> tuple[Any, ...] | None:
    """The weights of the head that is in a `keras.layers.ReversibleEmbedding`."""
    if layer.quantization_mode is not None:
        return None
    with backend.as_called(layer):
        if layer.tie_weights:
            return (_read(layer.embeddings),)
        return (ops.transpose(_read(layer.reverse_embeddings)),)


def dense_head(layer: Any) -> tuple[Any, ...] | None:
    """The weights of a head that is a `keras.layers.Dense`."""
    if layer.quantization_mode is not None:
        return None
    with backend.as_called(layer):
        kernel = ops.transpose(_read(layer.kernel))
        return (kernel, _read(layer.bias)) if layer.use_bias else (kernel,)


def _read(x: Any) -> Any:
    """The tensor of a variable, in the dtype that it is read in here."""
    return ops.convert_to_tensor(x.value if isinstance(x, keras.Variable) else x)


class _Pair:
    """What Keras would track, if it saw it in an attribute of a model."""

    def __init__(self, loss: Any, compiled: Any):
        self.loss, self.compiled = loss, compiled


class _PositionLoss(keras.losses.Loss):
    """Means of cross-entropies that are there, as `like` takes them of logits."""

    def __init__(self, like: keras.losses.SparseCategoricalCrossentropy):
        super().__init__(like.name, like.reduction, like.dtype)
        self.ignore_class = like.ignore_class

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if self.ignore_class is None:
            return y_pred
        counts = ops.not_equal(y_true, ops.cast(self.ignore_class, y_true.dtype))
        return backend.with_mask(ops.where(counts, y_pred, 0.0), counts)


def _require_cross_entropy(model: Any) -> keras.losses.SparseCategoricalCrossentropy:
    """The one loss that a model with a `loss_chunk` is compiled with, refused if it is another."""
    given = keras.tree.flatten(model.loss)
    loss: Any = given[0] if len(given) == 1 else None
    if type(loss) is keras.losses.SparseCategoricalCrossentropy and loss.from_logits:
        return loss
    raise ValueError(
        f"`{type(model).__name__}` received loss_chunk={model.loss_chunk} and was compiled with "
        f"loss={model.loss!r}, expected keras.losses.SparseCategoricalCrossentropy("
        "from_logits=True), which alone is computed in chunks. Compile with it, or build the model "
        "with loss_chunk=None."
    )


def _as_rows(x: Any, hidden: Any) -> Any:
    """What is given of positions as `(B, T)`; Keras takes `(B, T, 1)` for the same."""
    x = ops.convert_to_tensor(x)
    return ops.squeeze(x, -1) if len(x.shape) == len(hidden.shape) and x.shape[-1] == 1 else x


def _flat(x: Any) -> Any:
    return ops.reshape(x, (-1, int(x.shape[-1])))
