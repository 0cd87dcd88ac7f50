"""A vector for every nucleus: the mean of the network's tokens that it covers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from softctm.nuclei_table import NucleiTable


def nuclei_embeddings(
    tokens: NDArray[np.floating], instances: NDArray[np.integer], table: NucleiTable, *, stride: int
) -> NDArray[np.float16]:
    """Mean token of each nucleus.

    Parameters
    ----------
    tokens : (D, h, w) float
        The encoder's last tokens; together they cover the map, from its top left corner on.
    instances : (H, W) integer
    table : NucleiTable
        Nuclei of that map.
    stride : int
        Pixels a side that a token stands for.

    Returns
    -------
    (N, D) float16
        In the table's order. A token counts once, however many pixels of the nucleus lie in it.

    Raises
    ------
    ValueError
        If the tokens do not cover the map.
    """
    depth, height, width = tokens.shape
    if instances.shape[0] > height * stride or instances.shape[1] > width * stride:
        raise ValueError(f"tokens {tokens.shape}, one in {stride} pixels, do not cover {instances.shape}")
    place = np.full(max(int(instances.max(initial=0)), int(table.id.max(initial=0))) + 1, -1)
    place[table.id] = np.arange(len(table))
    rows, columns = np.nonzero(instances)
    owner = place[instances[rows, columns]]
    token = (rows // stride) * width + columns // stride
    covered = np.unique((owner * height * width + token)[owner >= 0])
    owner, token = covered // (height * width), covered % (height * width)
    member = csr_array((np.ones(len(covered)), (owner, token)), (len(table), height * width))
    total = member @ tokens.reshape(depth, -1).T.astype(np.float64)
    mean: NDArray[np.float16] = (total / np.bincount(owner, minlength=len(table))[:, None]).astype(np.float16)
    return mean
