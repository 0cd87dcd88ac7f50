"""The HTML page of predictions, with and without ground truth, and the tables of an evaluation."""

import logging

# Matplotlib tells where it keeps its cache and that it builds one: nothing that a user could act on.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
