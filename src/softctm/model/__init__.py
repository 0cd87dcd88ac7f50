"""What a model is: `model.json` as one typed object, its files, its tasks."""

from softctm.model.find import find_weights
from softctm.model.manifest import Manifest
from softctm.model.model import Model, Stage, load_model
from softctm.model.network_file import Network

__all__ = ["Manifest", "Model", "Network", "Stage", "find_weights", "load_model"]
