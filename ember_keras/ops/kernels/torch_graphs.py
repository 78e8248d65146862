"""A step and its gradient as a graph of torch's operations, cut in pieces that run one by one."""

import math
import operator

import torch
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

VIEWS = frozenset(
    "t transpose permute view _unsafe_view reshape unsqueeze squeeze expand slice select split "
    "split_with_sizes unbind alias detach".split()
)
"""Operations that are cheaper to do again than to keep the result of."""


class Trace:
    """The graph of a step and its gradient on inputs of some shapes.

    Inputs and outputs are flat: the leaves of x, state and weights, then the cotangents of y and
    of the new state; and y, the new state, then the gradients of state, x and weights.

    Args:
        function: function of the leaves of x, state and weights that returns those of y and of
            the new state.
        groups: the leaves of x, state and weights: three lists of tensors, for their shapes.
        outputs: tensors in the shapes of the leaves of y and of the new state.
    """

    def __init__(self, function, groups, outputs):
        leaves = [leaf for group in groups for leaf in group]
        self.floats = [[leaf.is_floating_point() for leaf in group] for group in groups]
        chosen = [at for at, leaf in enumerate(leaves) if leaf.is_floating_point()]

        def joint(*inputs):
            inputs, cotangents = inputs[: len(leaves)], inputs[len(leaves) :]

            def of_floats(*floats):
                full = list(inputs)
                for at, value in zip(chosen, floats, strict=True):
                    full[at] = value
                return tuple(function(*full))

            results, gradient = torch.func.vjp(of_floats, *(inputs[at] for at in chosen))
            return (*results, *gradient(tuple(cotangents)))

        examples = [torch.empty_like(leaf) for leaf in [*leaves, *outputs]]
        self.module = make_fx(joint, tracing_mode="fake")(*examples)
        self.nodes = list(self.module.graph.nodes)
        self.targets = [(node.op, str(node.target)) for node in self.nodes if node.op != "get_attr"]
        places = [node for node in self.nodes if node.op == "placeholder"]
        found = list(self.nodes[-1].args[0])
        x, state, weights = (len(group) for group in groups)
        self.places = {
            "x": places[:x],
            "state": places[x : x + state],
            "weights": places[x + state : x + state + weights],
            "y_slope": places[x + state + weights : len(places) - state],
            "state_slope": places[len(places) - state :],
        }
        made = len(outputs)
        gradients = iter(found[made:])
        dx, dstate, dweights = (
            [next(gradients) if is_float else None for is_float in group] for group in self.floats
        )
        self.results = {
            "y": found[: made - state],
            "state": found[made - state : made],
            "dx": dx,
            "dstate": dstate,
            "dweights": dweights,
        }
        self._classify()

    def _classify(self):
        kind = {}
        for name, nodes in self.places.items():
            late = "slope" in name
            kind.update({node: {"g"} if late else {"w" if name == "weights" else "r"}
                         for node in nodes})  # fmt: skip
        for node in self.nodes:
            if node.op != "placeholder":
                kind[node] = set().union(*(kind[each] for each in node.all_input_nodes))
        self.late = {node for node in self.nodes if "g" in kind[node]}
        self.fixed = {
            node for node in self.nodes if kind[node] == {"w"} and node.op != "placeholder"
        }
        self.free = {node for node in self.nodes if not kind[node]}

    def largest(self):
        """Return the numbers of the largest tensor of rows."""
        shapes = (_shape(node) for node in self.nodes)
        return max(math.prod(shape) for shape in shapes if shape and shape[0] == _rows(self))

    def piece(self, outputs, given):
        """Return a `Piece` that computes nodes out of the nodes that are `given`."""
        compute, inputs, stack = set(), set(), [node for node in outputs if node is not None]
        while stack:
            node = stack.pop()
            if node in compute or node in inputs:
                continue
            if node.op == "placeholder" or (given(node) and node not in self.free):
                inputs.add(node)
            else:
                compute.add(node)
                stack.extend(node.all_input_nodes)
        return Piece(self, [n for n in self.nodes if n in inputs], compute, outputs)


class Piece:
    """A part of a graph: `run` is a function of its `inputs`, a list of nodes, in order."""

    def __init__(self, trace, inputs, compute, outputs):
        graph, copies = Graph(), {}
        for node in inputs:
            copies[node] = graph.placeholder(node.name)
        for node in trace.nodes:
            if node in compute:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(None if node is None else copies[node] for node in outputs))
        self.inputs = inputs
        self.compute = compute
        self.outputs = outputs
        self.module = GraphModule(trace.module, graph)
        self.run = self.module.forward

    def reads(self, banks):
        """Return where each input is found: pairs of the number of a bank and a place in it.

        Args:
            banks: list of lists of nodes.
        """
        found = {}
        for number, bank in enumerate(banks):
            for at, node in enumerate(bank):
                found.setdefault(node, (number, at))
        return [found[node] for node in self.inputs]


class Cut:
    """What runs once a call, once a position, and backwards, with every result that is kept."""

    def __init__(self, trace, wide=None):
        places, results = trace.places, trace.results
        self.trace, self.wide = trace, wide
        is_fixed = trace.fixed.__contains__
        ahead = [*results["y"], *results["state"]]
        self.infer = trace.piece(ahead, is_fixed)
        if wide is None:
            slopes = [*results["dstate"], *results["dx"], *results["dweights"]]
            self.forward, self.back = self.infer, trace.piece(slopes, is_fixed)
            self.kept, self.found = [], []
            parts = (self.infer, self.back)
        else:
            back = trace.piece(
                results["dstate"], lambda node: node not in trace.late and _is_tensor(node)
            )
            self.kept = [n for n in back.inputs if n.op != "placeholder" and not is_fixed(n)]
            self._rest(back)
            self.forward = trace.piece([*ahead, *self.kept], is_fixed)
            self.back = trace.piece(
                [*results["dstate"], *self.found],
                lambda node: is_fixed(node) or node in self.kept,
            )
            parts = (self.forward, self.back, self.infer)
        used = {node for part in parts for node in part.inputs if is_fixed(node)}
        if wide is not None:
            used |= {self.narrow[n] for n in self.rest.inputs if is_fixed(self.narrow[n])}
        self.fixed = trace.piece([n for n in trace.nodes if n in used], lambda node: False)
        once = [self.fixed.outputs, places["weights"]]
        self.fixed_reads = self.fixed.reads([[], places["weights"]])
        self.infer_reads = self.infer.reads([*once, places["x"], places["state"]])
        self.forward_reads = self.forward.reads([*once, places["x"], places["state"]])
        backwards = [*once, places["x"], places["state"], places["y_slope"],
                     places["state_slope"], self.kept]  # fmt: skip
        self.back_reads = self.back.reads(backwards)
        if wide is not None:
            banks = [[self.twin[node] for node in bank] for bank in [*backwards, self.found]]
            self.rest_reads = self.rest.reads(banks)

    def _rest(self, back):
        """Finds what is left to compute with all positions as rows, and what it needs kept."""
        trace, wide = self.trace, self.wide
        self.twin = dict(zip(trace.nodes, wide.nodes, strict=True))
        self.narrow = {twin: node for node, twin in self.twin.items()}
        self.found = []

        def given(twin):
            node = self.narrow[twin]
            if node in trace.fixed:
                return _shape(node) == _shape(twin)
            if not self._has_rows(node):
                return False
            if node in trace.late:
                if node in back.compute:
                    self.found.append(node)
                return node in back.compute
            if node in self.kept:
                return True
            if _operation(node) in VIEWS or node.op == "get_attr":
                return False
            self.kept.append(node)
            return True

        results = wide.results
        self.rest = wide.piece([*results["dx"], *results["dweights"]], given)
        self.found = list(dict.fromkeys(self.found))

    def _has_rows(self, node):
        """Whether the first axis of a node is that of the rows."""
        small, large = _shape(node), _shape(self.twin[node])
        if not small or not large or len(small) != len(large):
            return False
        rows, all_rows = _rows(self.trace), _rows(self.wide)
        return (small[0], large[0]) == (rows, all_rows) and small[1:] == large[1:]


def alike(one, other):
    """Whether two traces are of the same operations, on other shapes."""
    return one.targets == other.targets and len(one.nodes) == len(other.nodes)


def _rows(trace):
    return _shape(trace.places["x"][0])[0]


def _shape(node):
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _is_tensor(node):
    return _shape(node) is not None or node.op == "get_attr"


def _operation(node):
    if node.target is operator.getitem:
        return "split"
    return getattr(node.target, "_opname", str(node.target))
