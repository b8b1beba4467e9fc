"""Which operations go into which kernel.

Operations are visited consumers first. Each one is either *computed in place* by every kernel
that reads it, or made the *root* of a kernel of its own, whose result is in memory. A kernel with
root r then reads only values from which r was computed before, so kernels depend on one another
as their roots do in the block: no cycle can arise, and a kernel may be called where its root was.

A *view* is one way to reach an operation from its kernel's root; two paths through element-wise
operations are the same view. Its count is how many elements are evaluated through it. An operation
that several kernels or views read is computed again for each; whether that costs less than storing
it is decided by counting additions and bytes:

    recompute:  weight * evaluations              + leaf bytes * readers / 2
    store:      weight * size + launch            + (leaf bytes + bytes * (1 + readers)) / 2

where a byte moved costs half an addition (the ratio of vector arithmetic to the bandwidth
of a cache shared by cores, to a factor of two; it only ranks choices).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from pai.passes.fuse import ops
from pai.passes.fuse.graph import Node
from pai.passes.fuse.ops import Read

ROOT = 0  # the view at the index of the kernel's result
SCALAR = 1  # the view of values with one element
LAUNCH = 2000.0  # cost of one more kernel, in additions
BYTE = 0.5  # cost of one byte moved, in additions


@dataclass
class Kernel:
    """A kernel to be: ``members`` are evaluated in it, ``roots`` are its results.

    Args:
        kind: what kind of emitter it wants.
        roots: numbers of the nodes whose results it writes.
        members: numbers of all nodes it evaluates, roots included, ascending once finished.
        evaluated: number of (node, view) pairs.
    """

    kind: str
    roots: list[int]
    members: list[int] = field(default_factory=list)
    evaluated: int = 0


class Grouping:
    """One run over the nodes of a block; ``kernels`` holds the result by root.

    Args:
        nodes: the block's operations.
        max_evaluated: limit of (node, view) pairs in one kernel.
        max_views: limit of views of one node in one kernel.
    """

    def __init__(self, nodes: list[Node], max_evaluated: int, max_views: int) -> None:
        self.nodes = nodes
        self.max_evaluated = max_evaluated
        self.max_views = max_views
        self.kernels: dict[int, Kernel] = {}
        # node -> kernel root -> view -> evaluations; filled by consumers, taken by the node
        self._uses: dict[int, dict[int, dict[int, int]]] = defaultdict(dict)
        self._views: dict[tuple[int, int, int], int] = {}
        self._epilogue = _epilogue_chains(nodes)

    def run(self) -> list[Kernel]:
        """Return the kernels in the order of their roots."""
        for number in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[number]
            uses = self._uses.pop(number, {})
            if node.stays:
                continue
            if node.sinks:
                for root in uses:
                    self.kernels[root].members.append(number)
            elif uses or node.pinned or _has_effect(node):
                self._place(number, node, uses)
        kernels = [self.kernels[root] for root in sorted(self.kernels)]
        for kernel in kernels:
            kernel.members.reverse()
        return kernels

    def _place(self, number: int, node: Node, uses: dict[int, dict[int, int]]) -> None:
        copied = self._is_free(node)
        if uses and (copied or not node.pinned) and self._in_place(number, node, uses):
            for root, views in uses.items():
                kernel = self.kernels[root]
                if node.name in ops.HEAVY:
                    kernel.kind = ops.kind_of(node.name)
                kernel.members.append(number)
                kernel.evaluated += len(views)
                for view, count in views.items():
                    self._read_operands(number, node, root, view, count)
            if not node.pinned:
                return
        kernel = Kernel(ops.kind_of(node.name), [number], [number], 1)
        self.kernels[number] = kernel
        self._read_operands(number, node, number, ROOT, node.size)

    def _is_free(self, node: Node) -> bool:
        """Whether a kernel computes it without reading memory: iota, broadcasts of constants."""
        return node.elemental and all(
            maker is not None and self.nodes[maker].sinks for maker in node.operands
        )

    def _in_place(self, number: int, node: Node, uses: dict[int, dict[int, int]]) -> bool:
        """Decide whether the kernels that read a node evaluate it themselves."""
        readers = sum(len(views) for views in uses.values())
        for root, views in uses.items():
            full = self.kernels[root].evaluated + len(views) > self.max_evaluated
            if full or len(views) > self.max_views:
                return False
        if node.name in ops.HEAVY:
            return self._as_epilogue(node, uses)
        if not node.elemental:
            return False
        if number in self._epilogue and not self._at_root_of_loop(uses):
            return False
        if self._is_free(node):
            return True
        evaluations = sum(count for views in uses.values() for count in views.values())
        leaves = sum(self._leaf_bytes(node, maker) for maker in dict.fromkeys(node.operands))
        cost = ops.weight(node.name)
        recompute = cost * evaluations + BYTE * leaves * readers
        store = cost * node.size + BYTE * (leaves + node.bytes * (1 + readers)) + LAUNCH
        return recompute <= store

    def _leaf_bytes(self, node: Node, maker: int | None) -> int:
        if maker is None:
            return node.bytes
        made = self.nodes[maker]
        return 0 if made.sinks or self._is_free(made) else min(made.bytes, node.bytes)

    def _at_root_of_loop(self, uses: dict[int, dict[int, int]]) -> bool:
        """Whether one element-wise kernel alone reads it, at the index of its result."""
        ((root, views),) = uses.items() if len(uses) == 1 else ((-1, {}),)
        return root >= 0 and self.kernels[root].kind == "loop" and set(views) == {ROOT}

    def _as_epilogue(self, node: Node, uses: dict[int, dict[int, int]]) -> bool:
        """Whether all that reads a dot, convolution or reduction can be done before its store.

        The kernel's result then holds the sums first, so it must have their element type.
        """
        if not self._at_root_of_loop(uses):
            return False
        (root,) = uses
        made = self.nodes[root]
        if len(node.op.results) != 1:
            return False
        if made.size != node.size or len(made.op.results) != 1:
            return False
        before, after = node.op.results[0].type, made.op.results[0].type
        return ops.element_type(before) == ops.element_type(after)

    def _read_operands(self, number: int, node: Node, root: int, view: int, count: int) -> None:
        for position, maker in enumerate(node.operands):
            read = node.reads[position]
            if maker is None or read is Read.WHOLE:
                continue
            made = self.nodes[maker]
            if made.stays:
                continue
            if node.name == "stablehlo.reduce" and read is Read.MAP:
                below = ROOT if number == root else self._view(view, number, 0)
                evaluated = made.size
            elif number == root and read is Read.MAP and not node.elemental:
                below, evaluated = self._view(view, number, position), made.size
            else:
                below = self._below(number, node, position, root, view)
                evaluated = count
            if made.size == 1:
                below, evaluated = SCALAR, 1
            self._uses[maker].setdefault(root, {})[below] = evaluated

    def _below(self, number: int, node: Node, position: int, root: int, view: int) -> int:
        """Return the view through which an operand is read."""
        read = node.reads[position]
        if read is Read.SAME:
            return view
        if read is Read.SCALAR:
            return SCALAR
        if read is Read.LINEAR and view == ROOT and (number == root or keeps_rows(node)):
            return ROOT
        return self._view(view, number, position)

    def _view(self, view: int, number: int, position: int) -> int:
        return self._views.setdefault((view, number, position), len(self._views) + 2)


def keeps_rows(node: Node) -> bool:
    """Whether a bitcast keeps the last dimension that is not 1, so that rows stay rows."""
    before = [d for d in ops.shape_of(node.op.operands[0].type) if d != 1]
    after = [d for d in ops.shape_of(node.op.results[0].type) if d != 1]
    return before[-1:] == after[-1:]


def _epilogue_chains(nodes: list[Node]) -> set[int]:
    """Return the element-wise nodes that one heavy operation alone leads to, step by step.

    Such a node costs nothing to store, for then the heavy one's own result is not stored.
    """
    chain: set[int] = set()
    for number, node in enumerate(nodes):
        if not node.elemental:
            continue
        for position, maker in enumerate(node.operands):
            if maker is None or len(nodes[maker].users) != 1 or nodes[maker].pinned:
                continue
            read = node.reads[position]
            follows = read is Read.SAME or (read is Read.LINEAR and keeps_rows(node))
            if follows and (nodes[maker].name in ops.HEAVY or maker in chain):
                chain.add(number)
    return chain


def _has_effect(node: Node) -> bool:
    return node.name == "stablehlo.custom_call" and "true" in str(
        node.op.attributes.get("has_side_effect", "")
    )
