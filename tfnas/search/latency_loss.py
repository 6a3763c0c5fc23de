"""The latency objective C(LAT) that architecture steps add to the cross-entropy (Eq. 9)."""

from __future__ import annotations

from torch import Tensor


def latency_loss(latency_ms: Tensor, target_ms: float, kind: str = "target") -> Tensor:
    """Relative excess over the target, Eq. 9: max(LAT / target - 1, 0).

    Args:
        kind: `target` for Eq. 9; `target_abs` for |LAT / target - 1|, which the authors' code has and which
            pulls a too fast network up to the target as well.
    """
    excess = latency_ms / target_ms - 1.0
    return excess.abs() if kind == "target_abs" else excess.clamp_min(0.0)
