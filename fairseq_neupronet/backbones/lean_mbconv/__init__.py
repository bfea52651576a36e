"""EfficientNet's training pass on a CPU, with little memory and few trips to it.

The modules and parameters are efficientnet_pytorch's own, and so are the numbers, to rounding. What differs is what is
kept for the backward pass and in which portions the work is done:

- The statistics of the batch norm after the 1 × 1 expansion follow from the covariance of the expansion's input, which
  is six times narrower. Known beforehand they go into its weights, and the large map is never kept: each pass computes
  a few clips' part, uses it and drops it. Backward the same sums give the batch norm's gradient.
- Of a map, a batch norm and the swish after it only the map is kept, and the rest is computed again (the idea of Rota
  Bulò et al., CVPR 2018).
- All that lies between two batch statistics is done for a few clips at a time, which stay in the processor's cache.
- The gate of squeeze-and-excitation multiplies the weights of the projection that follows, clip by clip, instead of
  the much larger map.
"""

from fairseq_neupronet.backbones.lean_mbconv.block import extract_features

__all__ = ["extract_features"]
