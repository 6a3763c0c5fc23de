"""Trained networks in use: loaded, evaluated, exported, in timm."""

from tfnas.deploy.load import classify, load_network
from tfnas.deploy.timm_models import register_with_timm

__all__ = ["classify", "load_network", "register_with_timm"]
