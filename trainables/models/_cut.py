"""Cuts a network in two where nothing before the cut trains."""

from collections.abc import Iterable

from torch import fx, nn


class _Leaves(fx.Tracer):
    """Follows a network down to the modules without children, so that what they do in training is left to them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not list(module.children()) or super().is_leaf_module(module, name)


def cut(net: nn.Module, training: Iterable[str]) -> tuple[nn.Module, nn.Module] | None:
    """Return two modules, which share the parts of `net` and together are what it is.

    The first holds none of the modules named in `training`, and as much of the others as comes before them and ends
    in one tensor. None where that is nothing.
    """
    tracer = _Leaves()
    graph = tracer.trace(net)
    tracer.root, tracer.tensor_attrs = nn.Module(), {}  # a function of its own refers to it, in a circle
    nodes = list(graph.nodes)
    names = set(training)
    end = next((at for at, node in enumerate(nodes) if node.op == "call_module" and node.target in names), 0)
    for at in range(end, 1, -1):
        crossing = {used for node in nodes[at:] for used in node.all_input_nodes if used in set(nodes[:at])}
        if len(crossing) == 1 and not crossing <= set(nodes[:1]):
            [last] = crossing
            return _part(net, nodes[:at], None, last), _part(net, nodes[at:], last, None)
    return None


def _part(net: nn.Module, nodes: list[fx.Node], first: fx.Node | None, last: fx.Node | None) -> nn.Module:
    """Return a module of some nodes, which takes the value of `first` and gives that of `last`, where they are set."""
    graph = fx.Graph()
    of: dict[fx.Node, fx.Node] = {}
    if first is not None:
        of[first] = graph.placeholder("features")
    for node in nodes:
        of[node] = graph.node_copy(node, of.__getitem__)
    if last is not None:
        graph.output(of[last])
    module = fx.GraphModule(net, graph)
    module.graph.owning_module = None  # a circle: the weights would stay in a GPU's memory until one is looked for
    return module
