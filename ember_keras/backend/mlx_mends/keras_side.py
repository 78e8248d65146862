"""What `keras_mlx` 0.0.1 expects of a later Keras and Keras 3.15.1 does not have yet."""


def base_trainer(module):
    """`keras_mlx.src.trainer` derives from `BaseTrainer`, which 3.15.1 still names `Trainer`."""
    module.BaseTrainer = module.Trainer


def normalize_shift_and_axis(module):
    """`keras_mlx.src.ops.numpy.roll` imports this helper, which 3.15.1 does not have."""

    def normalize_shift_and_axis(shift, axis):
        """Return the shifts and axes of a roll as two tuples of one length."""
        shifts = tuple(shift) if isinstance(shift, (list, tuple)) else (shift,)
        axes = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
        length = max(len(shifts), len(axes))
        shifts = shifts * length if len(shifts) == 1 else shifts
        axes = axes * length if len(axes) == 1 else axes
        if len(shifts) != len(axes):
            raise ValueError(
                f"Received {len(shifts)} shifts and {len(axes)} axes; expected as many of one as "
                "of the other, or a single one. Give one shift for each axis."
            )
        return shifts, axes

    module.normalize_shift_and_axis = normalize_shift_and_axis


def mlx_arrays_as_data(module):
    """`fit`, `evaluate` and `predict` know the arrays of every backend but MLX as their data.

    An ``mx.array`` has no ``__array__``, which they look for in a library that they do not know.
    """
    can_slice_array, convert_to_sliceable = module.can_slice_array, module.convert_to_sliceable

    def is_array(x):
        from mlx.core import array

        return isinstance(x, array)

    def to_numpy(x):
        return module.backend.convert_to_numpy(x) if is_array(x) else x

    def mended_can_slice_array(x):
        return is_array(x) or can_slice_array(x)

    def mended_convert_to_sliceable(arrays, target_backend=None):
        return convert_to_sliceable(module.tree.map_structure(to_numpy, arrays), target_backend)

    module.can_slice_array = mended_can_slice_array
    module.convert_to_sliceable = mended_convert_to_sliceable
