"""Mends of `keras_mlx.src.trainer`."""


def missing_inputs(module):
    """An optional input that is None could not be trained on: None was made into an array."""

    def __next__(self):
        begin, end, batches = module.EpochIterator.__next__(self)
        batches = module.tree.map_structure(module.convert_to_tensor, batches, none_is_leaf=False)
        return begin, end, batches

    module.MLXEpochIterator.__next__ = __next__
