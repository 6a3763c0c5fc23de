from .image_list import read_image_list as read_image_list
from .image_list import to_samples as to_samples
from .latency_tables import read_latency_table as read_latency_table
from .model_config import read_config as read_config
from .weights import load_weights as load_weights
from .weights import read_authors_weights as read_authors_weights
from .weights import read_searched_supernet as read_searched_supernet
