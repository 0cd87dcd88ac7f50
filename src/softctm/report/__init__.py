"""The HTML page of predictions, with and without ground truth, and the tables of an evaluation."""
