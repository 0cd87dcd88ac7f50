"""From points to files: the challenge's JSON and files for viewers."""

from softctm.writers.grand_challenge import points_document

__all__ = ["points_document"]
