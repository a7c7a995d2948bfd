"""Filters in Qdrant's REST shape as the embedded engine takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def edge_filter(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a qdrant_edge.Filter
    """A `qdrant_edge.Filter` of what `qdrant_layout` writes."""
    import qdrant_edge as edge

    clauses: dict[str, Any] = {name: [_edge_condition(part) for part in parts] for name, parts in data.items()}
    return edge.Filter(**clauses)


def _edge_condition(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of qdrant_edge's conditions
    import qdrant_edge as edge

    if "has_id" in data:
        return edge.HasIdCondition(set(data["has_id"]))
    if "key" not in data:
        return edge_filter(data)
    if "range" in data:
        return edge.FieldCondition(data["key"], range=edge.RangeFloat(**data["range"]))
    match = data["match"]
    if "any" in match:
        return edge.FieldCondition(data["key"], match=edge.MatchAny(match["any"]))
    value: Any = match["value"]
    # The binding tries integers first, and a Python bool is one; numpy's is not.
    value = np.bool_(value) if isinstance(value, bool) else value
    return edge.FieldCondition(data["key"], match=edge.MatchValue(value))
