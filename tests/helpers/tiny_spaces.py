"""A space small enough for tests: two searchable stages, one that strides and one that keeps its shape."""

from __future__ import annotations

K3_E3 = "{name: k3_e3, kernel: 3, expand_ratio: 3, expand_range: [2, 4], se_ratio: 0}"
K3_E6 = "{name: k3_e6, kernel: 3, expand_ratio: 6, expand_range: [4, 8], se_ratio: 0}"
K5_E3 = "{name: k5_e3, kernel: 5, expand_ratio: 3, expand_range: [2, 4], se_ratio: 0}"
K3_E3_SE = "{name: k3_e3_se, kernel: 3, expand_ratio: 3, expand_range: [2, 4], se_ratio: 1}"
K5_E6_SE = "{name: k5_e6_se, kernel: 5, expand_ratio: 6, expand_range: [4, 8], se_ratio: 2}"


def space_text(*candidates: str) -> str:
    """The space's file with these candidates."""
    rows = "\n".join(f"  - {candidate}" for candidate in candidates)
    return f"""
name: tiny
resolution: 16
stem: {{kernel: 3, in_channels: 3, out_channels: 6, stride: 2, act: relu}}
stages:
  - {{stage: 2, in_channels: 6, out_channels: 4, stride: 1, depth: [1, 1], act: relu,
     fixed: {{kernel: 3, expand_ratio: 1, se_ratio: 0.5}}}}
  - {{stage: 3, in_channels: 4, out_channels: 6, stride: 2, depth: [1, 2], act: relu}}
  - {{stage: 4, in_channels: 6, out_channels: 8, stride: 1, depth: [1, 3], act: swish}}
candidates:
{rows}
head: {{out_channels: 16, act: swish}}
"""
