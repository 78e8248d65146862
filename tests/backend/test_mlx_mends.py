"""Each mend of the mlx backend, by the behaviour that was wrong without it."""

import importlib

import keras
import numpy as np
import pytest
from keras import ops

from ember_keras import backend
from ember_keras.backend import mlx_mends

pytestmark = pytest.mark.usefixtures("only_mlx")


@pytest.fixture
def mx():
    return importlib.import_module("mlx.core")


def test_every_mend_says_what_is_wrong():
    for module, mends in mlx_mends.MENDS.items():
        assert importlib.import_module(module)
        assert all(callable(mend) for mend in mends)


def test_dtypes(mx):
    for name in ("float32", "bfloat16", "int64", "bool", "complex64"):
        kind = mx.bool_ if name == "bool" else getattr(mx, name)
        assert keras.backend.standardize_dtype(kind) == name


def test_roll_over_two_axes():
    x = np.arange(12.0).reshape(3, 4)
    rolled = backend.to_numpy(ops.roll(ops.convert_to_tensor(x), (1, 2), axis=(0, 1)))
    np.testing.assert_array_equal(rolled, np.roll(x, (1, 2), axis=(0, 1)))


def test_take_from_a_transposed_array_of_one_row():
    x = np.arange(12, dtype="float32").reshape(1, 3, 4)
    turned = ops.transpose(ops.convert_to_tensor(x), (0, 2, 1))
    for rows in ([0], [0, 0]):
        taken = backend.to_numpy(ops.take(turned, np.array(rows, "int32"), axis=0))
        np.testing.assert_array_equal(taken, x.transpose(0, 2, 1)[rows])


STRIDED = {
    "x[1::2]": lambda x: x[1::2],
    "x[..., 1::2]": lambda x: x[..., 1::2],
    "x[:, 0:2:2]": lambda x: x[:, 0:2:2],
    "x[2:1:-1]": lambda x: x[2:1:-1],
    "x[1::2, 1::2]": lambda x: x[1::2, 1::2],
    "x[0, 1::2]": lambda x: x[0, 1::2],
    "x[None, ..., 1::2]": lambda x: x[None, ..., 1::2],
}


@pytest.mark.parametrize("index", STRIDED)
def test_gradient_of_a_strided_slice_of_one_element(index):
    take = STRIDED[index]
    x = np.arange(9, dtype="float32").reshape(3, 3)
    _, (gradient,) = backend.value_and_grad(lambda t: ops.sum(take(t) * 3.0))(x)
    expected = np.zeros((3, 3))
    numbers = take(np.arange(9).reshape(3, 3)).reshape(-1)
    expected.reshape(-1)[numbers] = 3
    np.testing.assert_array_equal(backend.to_numpy(gradient), expected)


HOLOMORPHIC = {
    **{
        name: (getattr(ops, name), getattr(np, name))
        for name in (
            "exp",
            "exp2",
            "expm1",
            "log",
            "log1p",
            "log2",
            "log10",
            "sqrt",
            "square",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "tanh",
            "cumprod",
        )
    },
    "rsqrt": (ops.rsqrt, lambda z: 1 / np.sqrt(z)),
    "sigmoid": (ops.sigmoid, lambda z: 1 / (1 + np.exp(-z))),
    "power": (lambda z: ops.power(z, 3), lambda z: z**3),
    "operator **": (lambda z: z**2, lambda z: z**2),
    "operator ** reflected": (lambda z: 2.0**z, lambda z: 2.0**z),
    "real ** complex": (lambda z: ops.abs(z) ** 2, lambda z: np.abs(z) ** 2),
}


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_complex_value_and_gradient(name, rng):
    op, twin = HOLOMORPHIC[name]
    x, y, wr, wi = rng.normal(size=(4, 5))

    def loss(x, y, op, real, imag, total):
        out = op(x + 1j * y)
        return total(wr * real(out)) + total(wi * imag(out))

    def tensor_loss(x, y):
        z = ops.cast(x, "complex64") + ops.cast(y, "complex64") * ops.convert_to_tensor(1j)
        out = op(z)
        return ops.sum(ops.real(out) * wr.astype("f")) + ops.sum(ops.imag(out) * wi.astype("f"))

    value, gradients = backend.value_and_grad(tensor_loss)(x.astype("f"), y.astype("f"))
    assert float(value) == pytest.approx(loss(x, y, twin, np.real, np.imag, np.sum), rel=1e-4)
    for at, gradient in enumerate(gradients):
        for element in range(5):
            step = np.eye(5)[element] * 1e-6
            high = loss(
                *(v + step * (at == i) for i, v in enumerate((x, y))),
                twin,
                np.real,
                np.imag,
                np.sum,
            )
            low = loss(
                *(v - step * (at == i) for i, v in enumerate((x, y))),
                twin,
                np.real,
                np.imag,
                np.sum,
            )
            found = float(backend.to_numpy(gradient)[element])
            assert found == pytest.approx((high - low) / 2e-6, rel=2e-3, abs=2e-3)


def test_traced_start_index():
    x = np.arange(6, dtype="float32")
    for start, kept in ((2, 2), (9, 4), (-3, 0)):
        taken = backend.compile(lambda a, i: ops.slice(a, [i], [2]))(
            ops.convert_to_tensor(x), ops.convert_to_tensor(start)
        )
        assert backend.to_numpy(taken).tolist() == x[kept : kept + 2].tolist()
        put = backend.compile(lambda a, i: ops.slice_update(a, [i], ops.ones(2)))(
            ops.convert_to_tensor(x), ops.convert_to_tensor(start)
        )
        expected = x.copy()
        expected[kept : kept + 2] = 1
        assert backend.to_numpy(put).tolist() == expected.tolist()


def test_traced_switch():
    run = backend.compile(lambda i, x: ops.switch(i, [ops.sin, ops.cos, ops.exp], x))
    for at, twin in enumerate((np.sin, np.cos, np.exp)):
        out = run(ops.convert_to_tensor(at), ops.convert_to_tensor(0.5))
        assert float(out) == pytest.approx(twin(0.5), rel=1e-5)


def test_traced_cond_assigns_in_the_branch_taken_only():
    count, other = keras.Variable(0.0), keras.Variable(5.0)

    def bump(variable):
        variable.assign(variable + (1.0 if variable is count else 2.0))

    @backend.compile
    def step(pred, one, two):
        with keras.StatelessScope([(count, one), (other, two)]) as scope:
            ops.cond(pred, lambda: bump(count), lambda: bump(other))
        return scope.get_current_value(count), scope.get_current_value(other)

    zero, five = ops.convert_to_tensor(0.0), ops.convert_to_tensor(5.0)
    assert [float(v) for v in step(ops.convert_to_tensor(True), zero, five)] == [1, 5]
    assert [float(v) for v in step(ops.convert_to_tensor(False), zero, five)] == [0, 7]


def test_loops_that_cannot_be_compiled_say_so():
    def counted(n):
        return ops.while_loop(lambda i: i < n, lambda i: (i + 1,), (0,))[0]

    assert int(counted(ops.convert_to_tensor(3))) == 3
    with pytest.raises(ValueError, match="mlx compiles no data-dependent loop"):
        backend.compile(counted)(ops.convert_to_tensor(3))
    assert float(ops.fori_loop(0, ops.convert_to_tensor(3), lambda i, v: v + 1.0, 0.0)) == 3


def test_nan_constant_compiles():
    run = backend.compile(lambda x: ops.where(x > 0, x, ops.convert_to_tensor(float("nan"))))
    out = backend.to_numpy(run(ops.convert_to_tensor([1.0, -1.0])))
    assert out[0] == 1
    assert np.isnan(out[1])


def test_float64_keeps_its_digits():
    tensor = ops.convert_to_tensor(np.array([0.1]), dtype="float64")
    assert backend.to_numpy(tensor)[0] == 0.1
    for draw in (keras.random.uniform, keras.random.truncated_normal, keras.random.normal):
        assert backend.to_numpy(draw((3,), dtype="float64", seed=0)).dtype == "float64"


def test_arrays_meet_variables_and_numpy(mx):
    kernel = keras.Variable(np.eye(2, dtype="float32") * 2)
    assert backend.to_numpy(mx.ones((1, 2)) @ kernel).tolist() == [[2, 2]]
    assert np.asarray(mx.ones(2)).tolist() == [1, 1]


def test_optional_input_may_be_none():
    first, second = keras.Input((2,)), keras.Input((2,), optional=True)

    class Add(keras.layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

        def compute_output_shape(self, x_shape, y_shape=None):
            return x_shape

    model = keras.Model([first, second], keras.layers.Dense(1)(Add()(first, second)))
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    assert np.isfinite(model.fit([x, None], y, verbose=0).history["loss"][0])


def test_export_refuses(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(NotImplementedError, match="Received the mlx backend"):
        model.export(tmp_path / "model", format="tf_saved_model")
