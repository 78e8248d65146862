"""Numpy's indexing rules on any backend's tensor, built on basic slicing and `keras.ops.take`.

Backends differ in what their own brackets take: torch refuses negative steps, TensorFlow integer
arrays, MLX masks. Here a key is split into a basic part, which every backend takes as it is once
the steps are positive, and an advanced part (integer arrays and masks), which becomes one `take`.
Both parts keep the gradient.
"""

import math
import operator

import numpy as np
from keras import ops

_EXPECTED = (
    "Expected integers, slices, None, Ellipsis, integer arrays or boolean masks, at most one a "
    "dimension (a mask takes as many dimensions as it has)."
)


def get_item(x, key, shape, is_traced, host):
    """The elements of `x` that `key` names.

    Args:
        x: Backend tensor of the given shape.
        key: An index or a tuple of them, free of EmberTensors.
        shape: The shape of `x`, with `None` where it is not known yet.
        is_traced: Function of a tensor: whether its values are not known yet.
        host: Function of a tensor that gives its values as a numpy array.

    Returns:
        A backend tensor.
    """
    items = [_classified(item) for item in (key if isinstance(key, tuple) else (key,))]
    items = _expanded(items, len(shape), key)
    if any(kind == "array" for kind, _ in items):
        items = _without_masks(items, shape, is_traced, host)
        return _advanced(x, items, shape)
    return _basic(x, items, shape)[0]


def _classified(item):
    """`(kind, item)`, where kind is one of none, ellipsis, slice, int, array."""
    if item is None:
        return "none", None
    if item is Ellipsis:
        return "ellipsis", item
    if isinstance(item, slice):
        return "slice", item
    if isinstance(item, (bool, np.bool_)):
        raise IndexError(
            f"Received the index {item}, a single bool. {_EXPECTED} "
            "Use an integer, or a mask with at least one dimension."
        )
    if isinstance(item, (int, np.integer)):
        return "int", int(item)
    if isinstance(item, (list, tuple)):
        item = np.asarray(item)
        item = item.astype("int32") if item.size == 0 else item
    dtype = str(getattr(item, "dtype", type(item).__name__))
    if "bool" not in dtype and "int" not in dtype:
        raise IndexError(
            f"Received an index of type {type(item).__name__} and dtype {dtype}. {_EXPECTED} "
            "Cast a float index with `.astype('int32')`."
        )
    if "bool" in dtype and len(item.shape) == 0:
        raise IndexError(f"Received a mask with no dimension as index. {_EXPECTED}")
    return "array", item


def _is_mask(item):
    return "bool" in str(item.dtype)


def _taken(kind, item):
    """How many dimensions an item of a key takes."""
    if kind == "array" and _is_mask(item):
        return len(item.shape)
    return 0 if kind in ("none", "ellipsis") else 1


def _expanded(items, ndim, key):
    """The items with the ellipsis, given or implied at the end, as full slices."""
    taken = sum(_taken(*item) for item in items)
    places = [place for place, (kind, _) in enumerate(items) if kind == "ellipsis"]
    if len(places) > 1 or taken > ndim:
        raise IndexError(
            f"Received the index {key!r} for a tensor of {ndim} dimensions. {_EXPECTED} "
            "Give fewer indices, and `...` at most once."
        )
    place = places[0] if places else len(items)
    filler = [("slice", slice(None))] * (ndim - taken)
    return items[:place] + filler + items[place + 1 :]


def _without_masks(items, shape, is_traced, host):
    """The items with each mask as the integer arrays of the places where it is true."""
    result, axis = [], 0
    for kind, item in items:
        if kind == "array" and _is_mask(item):
            if is_traced(item):
                raise ValueError(
                    "Received a traced boolean mask as index: the shape of the result would depend "
                    "on its values. Expected a mask with concrete values. "
                    "Use `ember_keras.ops.where(mask, x, 0)`, which keeps the shape."
                )
            expected = tuple(shape[axis : axis + len(item.shape)])
            if tuple(item.shape) != expected:
                raise IndexError(
                    f"Received a mask of shape {tuple(item.shape)} for dimensions of shape "
                    f"{expected}. Expected the same shape. Broadcast the mask first."
                )
            places = np.nonzero(item if isinstance(item, np.ndarray) else host(item))
            result += [("array", place.astype("int32")) for place in places]
        else:
            result.append((kind, item))
        axis += _taken(kind, item)
    return result


def _static_index(item, size, axis):
    if size is not None and not -size <= item < size:
        raise IndexError(
            f"Received the index {item} for axis {axis} of size {size}. "
            f"Expected {-size} <= index < {size}. Check the index against `x.shape`."
        )
    return item


def _basic(x, items, shape):
    """`x` after the basic part of a key, and the output axis of each array of the key."""
    native, flips, places = [], [], []
    axis = out = 0
    for kind, item in items:
        if kind == "none":
            native.append(None)
            out += 1
            continue
        size = shape[axis]
        if kind == "int":
            native.append(_static_index(item, size, axis))
        elif kind == "array":
            native.append(slice(None))
            places.append(out)
            out += 1
        else:
            item, flipped = _forward_slice(item, size)
            native.append(item)
            flips += [out] * flipped
            out += 1
        axis += 1
    if any(item is None or item != slice(None) for item in native):
        x = x[tuple(native)]
    for place in flips:
        x = ops.flip(x, axis=place)
    return x, places


def _forward_slice(item, size):
    """An equal slice with a positive step, and whether the result must be turned round."""
    if size is None:  # An unknown size: the backend's own rules.
        return item, False
    start, stop, step = (
        None if bound is None else operator.index(bound)
        for bound in (item.start, item.stop, item.step)
    )
    if step == 0:
        raise ValueError(
            f"Received the slice {item} with step 0. Expected another step. Leave the step out."
        )
    start, stop, step = slice(start, stop, step).indices(size)
    length = len(range(start, stop, step))
    if length == 0:
        return slice(0, 0, 1), False
    last = start + (length - 1) * step
    if step < 0:
        return slice(last, start + 1, -step), True
    if (start, last, step) == (0, size - 1, 1):
        return slice(None), False
    return slice(start, last + 1, step), False


def _advanced(x, items, shape):
    """`x` indexed by a key with integer arrays."""
    arrays = [item for kind, item in items if kind == "array"]
    if len(arrays) == 1 and not any(kind == "int" for kind, _ in items):
        x, places = _basic(x, items, shape)
        return ops.take(x, _positive(arrays[0], x.shape[places[0]]), axis=places[0])

    # Beside an array an integer is an array too: it decides where the result's dimensions go.
    items = [
        ("array", np.asarray(item, "int32")) if kind == "int" else (kind, item)
        for kind, item in items
    ]
    kinds = [kind for kind, _ in items]
    first = kinds.index("array")
    together = all(kind == "array" for kind in kinds[first : first + kinds.count("array")])
    x, places = _basic(x, items, shape)
    rest = [axis for axis in range(len(x.shape)) if axis not in places]
    sizes = [x.shape[axis] for axis in places]
    tail = [x.shape[axis] for axis in rest]
    if None in [*sizes, *tail[1:]]:
        raise ValueError(
            f"Received several integer arrays as index of a tensor with the partly unknown shape "
            f"{tuple(x.shape)}. Expected known sizes. Index one dimension at a time."
        )
    arrays = [
        _positive(item, size)
        for (_, item), size in zip(
            (item for item in items if item[0] == "array"), sizes, strict=True
        )
    ]
    flat = arrays[0]
    for array, size in zip(arrays[1:], sizes[1:], strict=True):
        flat = ops.add(ops.multiply(flat, size), array)
    x = ops.reshape(ops.transpose(x, places + rest), (math.prod(sizes), *tail))
    x = ops.take(x, flat, axis=0)
    if not together or not rest:
        return x
    width, before = len(flat.shape), places[0]
    order = [*range(width, width + before), *range(width), *range(width + before, len(x.shape))]
    return ops.transpose(x, order)


def _positive(item, size):
    """An integer array counted from the front; checked where its values are on the host."""
    if isinstance(item, np.ndarray):
        if item.size and (item.min() < -size or item.max() >= size):
            raise IndexError(
                f"Received an index array with values from {item.min()} to {item.max()} for an "
                f"axis of size {size}. Expected {-size} <= index < {size}. "
                "Check the indices against `x.shape`."
            )
        return np.where(item < 0, item + size, item).astype("int32")
    return ops.where(ops.less(item, 0), ops.add(item, size), item)
