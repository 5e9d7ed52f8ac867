"""A network as a graph of layers: traced, batch norm folded, and cut into what comes before and after."""

from __future__ import annotations

import copy
import logging
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from dirprune.errors import one_line
from dirprune.importance.fresh_norm import FreshNorm

logger = logging.getLogger(__name__)

FORWARD_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__iadd__"})
RECTIFIERS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"})
POOLINGS = frozenset({F.max_pool2d, torch.max_pool2d})
RESHAPES = frozenset({torch.flatten, torch.reshape, torch.squeeze, "flatten", "reshape", "view", "squeeze"})
QUESTIONS_OF_SHAPE = frozenset({getattr, "size", "dim", "numel"})


def trace(network: nn.Module) -> fx.GraphModule | None:
    """Return a copy of a network in evaluation mode as a graph with batch norm folded, or None.

    None is returned for a network whose `forward` depends on values (loops over data, say), for one with
    several inputs or with anything but one tensor as its output.
    """
    root = copy.deepcopy(network).eval()
    try:
        traced = fx.GraphModule(root, _Tracer().trace(root))
    except Exception as error:  # whatever a user's `forward` does with what is not a tensor
        logger.info("the network cannot be traced: %s", one_line(error, has_type=True))
        return None
    output = next(node for node in traced.graph.nodes if node.op == "output")
    n_inputs = sum(node.op == "placeholder" for node in traced.graph.nodes)
    if n_inputs != 1 or not isinstance(output.args[0], fx.Node):
        return None
    _fold_batch_norm_(traced)
    return traced


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, FreshNorm) or super().is_leaf_module(module, path)


def _fold_batch_norm_(traced: fx.GraphModule) -> None:
    """Fold each batch norm directly behind a convolution or linear layer into it, in place."""
    n_calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = get_module(traced, node)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or n_calls[node.target] > 1:
            continue
        before = node.args[0]
        layer = get_module(traced, before)
        if layer is None or n_calls[before.target] > 1 or len(before.users) > 1:
            continue
        if isinstance(layer, FORWARD_CONVOLUTIONS):
            folded: nn.Module = fuse_conv_bn_eval(layer, norm)
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        traced.set_submodule(before.target, folded.requires_grad_(False))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()


def get_module(traced: fx.GraphModule, node: object) -> nn.Module | None:
    """Return the module that a node calls, None where it calls none."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return traced.get_submodule(str(node.target))
    return None


def find_calls(traced: fx.GraphModule, path: str) -> list[fx.Node]:
    """Return the nodes that call a module."""
    return [node for node in traced.graph.nodes if node.op == "call_module" and node.target == path]


def find_downstream(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all that depend on them."""
    found: set[fx.Node] = set()
    open_nodes = list(nodes)
    while open_nodes:
        node = open_nodes.pop()
        if node not in found:
            found.add(node)
            open_nodes.extend(node.users)
    return found


def extract(
    traced: fx.GraphModule,
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    substitute: Callable[[fx.Graph, fx.Node, dict[fx.Node, fx.Node]], dict[fx.Node, fx.Node]] | None = None,
) -> fx.GraphModule:
    """Return the part of a graph that computes some nodes from others; it shares the modules.

    Args:
        traced: The whole graph.
        inputs: Become the part's arguments, in this order.
        outputs: Are returned as a tuple.
        substitute: Called before each node is copied with the copies so far; returns the copies that this
            node alone takes in place of them, and may add nodes for that.
    Raises:
        ValueError: If an output also depends on something else than the inputs and constants.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input_{number}")
    needed = find_needed(outputs, set(inputs))
    for node in traced.graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            raise ValueError(f"{node} is needed and not among the inputs")
        own = {} if substitute is None else substitute(graph, node, copies)
        known = {**copies, **own} if own else copies
        copies[node] = graph.node_copy(node, known.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(traced, graph)


def find_needed(outputs: Sequence[fx.Node], inputs: set[fx.Node]) -> set[fx.Node]:
    """Return the nodes that have to be computed for some outputs when some inputs are given."""
    needed: set[fx.Node] = set()
    open_nodes = [node for node in outputs if node not in inputs]
    while open_nodes:
        node = open_nodes.pop()
        if node not in needed:
            needed.add(node)
            open_nodes.extend(before for before in node.all_input_nodes if before not in inputs)
    return needed


def is_rectifier(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is a ReLU."""
    return isinstance(get_module(traced, node), nn.ReLU) or (
        node.op in ("call_function", "call_method") and node.target in RECTIFIERS
    )


def is_identity(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node passes its input on as it is, in evaluation mode."""
    module = get_module(traced, node)
    return isinstance(module, (nn.Identity, nn.modules.dropout._DropoutNd))


def asks_for_shape(node: fx.Node) -> bool:
    """Return whether a node reads only the shape of its input."""
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim", "device", "dtype")
    return node.op == "call_method" and node.target in QUESTIONS_OF_SHAPE


def is_affine(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is known to be an affine function of one input, example by example."""
    module = get_module(traced, node)
    if module is not None:
        if isinstance(module, _BatchNorm):
            return module.running_mean is not None
        return isinstance(module, (nn.Linear, nn.Flatten)) or is_identity(traced, node)
    return node.op in ("call_function", "call_method") and node.target in RESHAPES


def read_pooling(traced: fx.GraphModule, node: fx.Node) -> tuple[int, int] | None:
    """Return the kernel of a 2-d max-pooling whose windows touch without overlap, else None."""
    module = get_module(traced, node)
    kernel: object
    stride: object
    padding: object
    dilation: object
    if isinstance(module, nn.MaxPool2d):
        kernel, stride = module.kernel_size, module.stride
        is_plain = not module.ceil_mode and not module.return_indices
        padding, dilation = module.padding, module.dilation
    elif node.op == "call_function" and node.target in POOLINGS:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        kernel, stride = given.get("kernel_size"), given.get("stride")
        padding, dilation = given.get("padding", 0), given.get("dilation", 1)
        is_plain = not given.get("ceil_mode", False) and not given.get("return_indices", False)
    else:
        return None
    pair, step = _as_pair(kernel), _as_pair(stride if stride not in (None, ()) else kernel)
    if pair is None or pair != step or _as_pair(padding) != (0, 0) or _as_pair(dilation) != (1, 1):
        return None
    return pair if is_plain else None


def _as_pair(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return value[0], value[1]
    return None
