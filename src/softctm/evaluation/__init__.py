"""Predictions against annotations: the challenge's score and what lies behind it."""

from softctm.evaluation.analysis import evaluate
from softctm.evaluation.predictions import load_predictions
from softctm.evaluation.result import Evaluation
from softctm.evaluation.truth import load_truth

__all__ = ["Evaluation", "evaluate", "load_predictions", "load_truth"]
