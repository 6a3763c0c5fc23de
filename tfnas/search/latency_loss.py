"""The latency objective C(LAT) that architecture steps add to the cross-entropy (Eq. 9) and its rivals (Table 5)."""

from __future__ import annotations

from torch import Tensor

MICROSECONDS = 1000.0  # to a millisecond


def latency_loss(latency_ms: Tensor, target_ms: float, kind: str = "target", *, lambda_2: float = 0.6) -> Tensor:
    """C(LAT) without the factor lambda (Table 5: lambda_1), which the architecture step multiplies by; () to ().

    Args:
        kind: `target` for Eq. 9, the relative excess max(LAT / target - 1, 0);
            `target_abs` for |LAT / target - 1|, which the authors' code has and which pulls a too fast network up to
            the target as well;
            `log` for C1 of Table 5, log(LAT)^lambda_2, LAT in microseconds as in FBNet (in milliseconds the logarithm
            of a network below 1 ms would be negative). FBNet multiplies the cross-entropy by it; Table 5 and Eq. 7 add;
            `linear` for C2 of Table 5, LAT in milliseconds (ProxylessNAS).
            The last two do not know the target.
        lambda_2: the exponent of `log`; FBNet's is 0.6, the paper gives none.
    """
    if kind == "log":
        return (MICROSECONDS * latency_ms).log() ** lambda_2
    if kind == "linear":
        return latency_ms
    excess = latency_ms / target_ms - 1.0
    return excess.abs() if kind == "target_abs" else excess.clamp_min(0.0)
