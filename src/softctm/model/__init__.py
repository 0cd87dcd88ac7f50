"""What a model is: `model.json`, its files, its networks."""

from softctm.model.loading import Model, Stage, find_weights, load_model
from softctm.model.network_file import Network

__all__ = ["Model", "Network", "Stage", "find_weights", "load_model"]
