"""From points to files: the challenge's JSON, the run's record, and files for viewers."""

from softctm.writers.atomic import write_bytes_atomically, write_json_atomically
from softctm.writers.grand_challenge import points_document

__all__ = ["points_document", "write_bytes_atomically", "write_json_atomically"]
