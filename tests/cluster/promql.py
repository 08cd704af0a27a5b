"""Which labels the result of a PromQL expression has, given the labels of each metric.

Raises WrongQuery for a metric that nobody exposes and for a label that the metric doesn't have:
such a query parses, and is silently empty for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import promql_parser as promql

__all__ = ["Exposed", "WrongQuery", "labels_of"]

Labels = frozenset[str]
Exposed = Mapping[str, Labels]  # each sample's name, and the labels that a scraped series has


class WrongQuery(AssertionError):
    """The query names what isn't there."""


def labels_of(text: str, exposed: Exposed) -> Labels:
    """The labels of the result; raises WrongQuery, or ValueError when it does not parse."""
    return _labels(promql.parse(text), exposed)


def _labels(node: Any, exposed: Exposed) -> Labels:
    match node:
        case promql.VectorSelector():
            return _selected(node, exposed)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, exposed)
        case promql.AggregateExpr():
            return _aggregated(node, exposed)
        case promql.BinaryExpr():
            return _combined(node, exposed)
        case promql.Call():
            return _called(node, exposed)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(node.expr, exposed)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
    message = f"no rule for {type(node).__name__}"
    raise TypeError(message)


def _selected(selector: Any, exposed: Exposed) -> Labels:
    if selector.name not in exposed:
        message = f"nobody exposes {selector.name}"
        raise WrongQuery(message)
    labels = exposed[selector.name]
    _have(labels, [matcher.name for matcher in selector.matchers.matchers], selector.name)
    return labels


def _have(labels: Labels, wanted: list[str], what: str) -> None:
    missing = set(wanted) - labels
    if missing:
        message = f"{what} has no label {', '.join(sorted(missing))}"
        raise WrongQuery(message)


def _aggregated(node: Any, exposed: Exposed) -> Labels:
    labels = _labels(node.expr, exposed)
    if node.modifier is None:
        return frozenset()
    named = list(node.modifier.labels)
    _have(labels, named, str(node.expr))
    by = node.modifier.type == promql.AggModifierType.By
    return frozenset(named) if by else labels - frozenset(named)


def _combined(node: Any, exposed: Exposed) -> Labels:
    left, right = _labels(node.lhs, exposed), _labels(node.rhs, exposed)
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is not None:
        named = list(matching.labels)
        _have(left, named, str(node.lhs))
        _have(right, named, str(node.rhs))
        if node.modifier.card == promql.VectorMatchCardinality.OneToMany:
            return right
        many = node.modifier.card == promql.VectorMatchCardinality.ManyToOne
        sets = str(node.op) in {"and", "or", "unless"}
        return left if many or sets else frozenset(named)
    return left & right if left and right else left | right  # a number has no labels


def _called(node: Any, exposed: Exposed) -> Labels:
    name = node.func.name
    found = [_labels(argument, exposed) for argument in node.args]
    if name == "absent":
        # Of nothing, Prometheus makes a series with the labels that a plain selector asks for.
        selector = node.args[0]
        if not isinstance(selector, promql.VectorSelector):
            return frozenset()
        return frozenset(matcher.name for matcher in selector.matchers.matchers)
    labels = frozenset[str]().union(*found)
    if name == "histogram_quantile":
        _have(labels, ["le"], "the histogram's buckets")
        return labels - {"le"}
    return labels
