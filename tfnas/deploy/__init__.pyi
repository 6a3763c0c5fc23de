from .load import classify as classify
from .load import load_network as load_network
from .timm_models import register_with_timm as register_with_timm
