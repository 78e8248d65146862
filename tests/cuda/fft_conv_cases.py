"""Random calls of the long convolution's kernel, and a plain float64 reference."""

import dataclasses

import numpy as np

GRADIENTS = ("du", "dk", "dd", "dgate_in", "dgate_out")
TOLERANCES = {"float32": 2e-6, "float64": 1e-14, "float16": 2e-3, "bfloat16": 1e-2}


def to_bfloat16(x):
    """float32 rounded to the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x):
    return (x.astype(np.uint32) << 16).view(np.float32)


@dataclasses.dataclass
class Case:
    batch: int = 2
    width: int = 4
    filters: int = 4
    size: int = 30
    taps: int = 30
    start: int = 0
    length: int = 30
    skip: int = 0
    period: int = 0
    dtype: str = "float32"
    filter_dtype: str | None = None
    d: bool = True
    gate_in: bool = False
    gate_out: bool = False
    layout: str = "natural"
    isa: int = 0
    threads: int = 1

    def array(self, rng, shape, dtype=None):
        """Random numbers as they are stored, in this case's layout."""
        return self.laid_out(stored(rng.standard_normal(shape), dtype or self.dtype))

    def laid_out(self, x):
        """A copy with this case's strides; `misaligned` lies one byte off."""
        if self.layout == "misaligned":
            raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
            y = np.ndarray(x.shape, x.dtype, raw)
        elif self.layout == "strided":
            y = np.zeros([2 * n for n in x.shape], x.dtype)[
                tuple(slice(None, None, 2) for _ in x.shape)
            ]
        elif self.layout == "reversed":
            y = np.zeros_like(x)[:, ::-1] if x.ndim == 3 else np.zeros_like(x)[::-1]
        elif self.layout == "channels_first" and x.ndim == 3:
            y = np.zeros((x.shape[0], x.shape[2], x.shape[1]), x.dtype).transpose(0, 2, 1)
        else:
            y = np.empty_like(x)
        y[...] = x
        return y

    def inputs(self, rng):
        signal, output = (self.batch, self.size, self.width), (self.batch, self.length, self.width)
        filters = self.filter_dtype or self.dtype
        d = stored(rng.standard_normal(self.width), filters)
        return {
            "u": self.array(rng, signal),
            "k": self.array(rng, (self.taps, self.filters), filters),
            "d": d if self.d else None,
            "gate_in": self.array(rng, signal) if self.gate_in else None,
            "gate_out": self.array(rng, output) if self.gate_out else None,
        }

    def options(self):
        names = ("start", "length", "skip", "period", "isa", "threads")
        options = {name: getattr(self, name) for name in names}
        if "bfloat16" in (self.dtype, self.filter_dtype):
            options |= {"dtype": self.dtype, "filters": self.filter_dtype or self.dtype}
        return options

    def outputs(self, inputs):
        """Arrays for the gradients, full of numbers that are to be overwritten."""
        shapes = {"du": "u", "dk": "k", "dd": "d", "dgate_in": "gate_in", "dgate_out": "gate_out"}
        found = {}
        for name, of in shapes.items():
            x = inputs[of]
            found[name] = None if x is None else self.laid_out(np.full(x.shape, 7, x.dtype))
            if name == "dd" and x is not None:
                found[name] = np.full(x.shape, 7, x.dtype)
        return found


def stored(x, dtype):
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


def read(x, dtype):
    """Stored numbers as float64."""
    if x is None:
        return None
    return (from_bfloat16(x) if dtype == "bfloat16" else x).astype(np.float64)


def _most(x, without=0.0):
    if x is None:
        return without
    return float(np.abs(x).max()) if x.size else 0.0


class Reference:
    """The convolution and its gradients tap by tap, in float64."""

    def __init__(self, case, inputs):
        self.case = case
        filters = case.filter_dtype or case.dtype
        self.u, self.gate_in, self.gate_out = (
            read(inputs[name], case.dtype) for name in ("u", "gate_in", "gate_out")
        )
        self.k, self.d = read(inputs["k"], filters), read(inputs["d"], filters)
        self.x = self.u if self.gate_in is None else self.u * self.gate_in
        self.ratio = case.width // case.filters if case.width else 0
        self.per_channel = np.repeat(self.k, self.ratio, axis=1)

    def _reach(self, first):
        """Outputs that position `first` on reaches, and the positions."""
        case = self.case
        t = np.arange(case.length)
        p = t + first
        if case.period:
            p = p % case.period
        inside = (p >= 0) & (p < case.size)
        return t[inside], p[inside]

    def linear(self):
        """y before its gate."""
        case = self.case
        y = np.zeros((case.batch, case.length, case.width))
        for s in range(case.taps):
            t, p = self._reach(case.start - s)
            if len(t):
                y[:, t] += self.per_channel[s] * self.x[:, p]
        if self.d is not None:
            t, p = self._reach(case.skip)
            y[:, t] += self.d * self.x[:, p]
        return y

    def forward(self):
        y = self.linear()
        return y if self.gate_out is None else y * self.gate_out

    def products(self, g):
        """The largest product that each result is a sum of; sums may cancel."""
        g = _most(read(g, self.case.dtype))
        x, u, k = _most(self.x), _most(self.u), max(_most(self.k), _most(self.d))
        gate_in, gate_out = _most(self.gate_in, 1.0), _most(self.gate_out, 1.0)
        inner = g * gate_out
        sums = {"y": x * k * gate_out, "du": inner * k * gate_in, "dk": inner * x, "dd": inner * x}
        return {**sums, "dgate_in": inner * k * u, "dgate_out": g * k * x}

    def backward(self, g):
        case, g = self.case, read(g, self.case.dtype)
        inner = g if self.gate_out is None else g * self.gate_out
        dx = np.zeros_like(self.x)
        dk = np.zeros((case.taps, case.width))
        for s in range(case.taps):
            t, p = self._reach(case.start - s)
            if len(t):
                dx[:, p] += self.per_channel[s] * inner[:, t]
                dk[s] = (inner[:, t] * self.x[:, p]).sum((0, 1))
        dd = None
        if self.d is not None:
            t, p = self._reach(case.skip)
            dx[:, p] += self.d * inner[:, t]
            dd = (inner[:, t] * self.x[:, p]).sum((0, 1))
        return {
            "du": dx if self.gate_in is None else dx * self.gate_in,
            "dk": dk.reshape(case.taps, case.filters, self.ratio).sum(2),
            "dd": dd,
            "dgate_in": None if self.gate_in is None else dx * self.u,
            "dgate_out": None if self.gate_out is None else g * self.linear(),
        }


def error(found, expected, dtype, least):
    """The largest difference in units of the scale: of the result, or of its largest product."""
    if not expected.size:
        return 0.0
    scale = max(np.abs(expected).max(), least) or 1.0
    return float(np.abs(read(found, dtype) - expected).max() / scale)


def check(library, case, seed=0):
    """Compare a call, forward and backward, with the reference; return the errors by name."""
    rng = np.random.default_rng(seed)
    inputs = case.inputs(rng)
    reference = Reference(case, inputs)
    signals = {name: x for name, x in inputs.items() if name not in ("u", "k")}
    u, k = inputs["u"], inputs["k"]
    shape = (case.batch, case.length, case.width)
    y = case.laid_out(stored(np.full(shape, 7.0), case.dtype))
    library.forward(u, k, **signals, out=y, **case.options())
    g = case.array(rng, shape)
    least = reference.products(g)
    errors = {"y": error(y, reference.forward(), case.dtype, least["y"])}
    expected = reference.backward(g)
    found = library.backward(u, k, g, **signals, out=case.outputs(inputs), **case.options())
    for name in GRADIENTS:
        if expected[name] is not None:
            filters = name in ("dk", "dd") and case.filter_dtype
            errors[name] = error(found[name], expected[name], filters or case.dtype, least[name])
    return errors


def assert_close(library, case, seed=0):
    tolerance = TOLERANCES[case.dtype]
    errors = check(library, case, seed)
    wrong = {name: value for name, value in errors.items() if not value <= tolerance}
    assert not wrong, f"{wrong} above {tolerance} in {case}, seed {seed}"


def random_case(rng, most=160):
    """Any options at all, small sizes, zero-size dimensions among them; long ones are narrow."""

    def size(least=0):
        return int(rng.integers(least, rng.choice([3, 20, most]) + 1))

    filters = size() // max(4, most // 10)
    period = size(1) if rng.random() < 0.25 else 0
    cap = period or 10**9
    dtype = str(rng.choice(list(TOLERANCES), p=[0.5, 0.2, 0.15, 0.15]))
    half = dtype in ("float16", "bfloat16")
    return Case(
        batch=int(rng.integers(0, 6 if most <= 160 else 3)),
        width=filters * int(rng.choice([1, 1, 1, 2, 3, 5, 17, 33])),
        filters=filters,
        size=min(size(), cap),
        taps=min(size(1), cap),
        start=int(rng.choice([0, 0, size(), 300])),
        length=min(size(), cap),
        skip=int(rng.choice([0, size(), -size()])),
        period=period,
        dtype=dtype,
        filter_dtype="float32" if half and rng.random() < 0.5 else None,
        d=bool(rng.random() < 0.7),
        gate_in=bool(rng.random() < 0.5),
        gate_out=bool(rng.random() < 0.5),
        layout=str(rng.choice(["natural", "misaligned", "strided", "reversed", "channels_first"])),
        threads=int(rng.integers(1, 4)),
    )


def numbered_case(seed):
    """The random case of a seed; every tenth is up to 700 long: some come in parts."""
    return random_case(np.random.default_rng(seed), 160 if seed % 10 else 700)
