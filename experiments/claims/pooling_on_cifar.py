"""Overlapping pooling on CIFAR-10: windows of 3 x 3 at stride 2 against 2 x 2.

The paper (P3.4): .4 and .3 points less in top-1 and top-5 error "as compared with the
non-overlapping scheme s = 2, z = 2", and "slightly more difficult to overfit", on ImageNet.

Here: all three poolings of the four-layer CIFAR-10 net, with response normalization as in the
paper's network; otherwise as lrn_on_cifar.py has it, whose runs with LRN are one side of this pair
if WORKDIR is the same. The number of parameters and outputs is the same. CIFAR-10 as lossy JPEG
copies.

Expected: less with overlap; .4 points would not be resolved by 3 seeds.
Cost:     4 minutes a run on 2 free CPU cores: 12 minutes for 3 seeds after lrn_on_cifar.py
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/pooling_on_cifar.py \
            --data DIR --workdir runs/cifar

DIR holds train/<class>/* and test/<class>/*. Runs go on where they were interrupted; what is
finished is in WORKDIR/record.jsonl; `--seeds` without a number makes table and picture of that.
"""

import functools

import cifar_pairs
import experiment
from cifar_net import CIFAR_NORM, FourLayerNet

PAIR = {
    "LRN, 2/2 pooling": FourLayerNet(norm=CIFAR_NORM, window=2),
    "LRN, 3/2 pooling": FourLayerNet(norm=CIFAR_NORM),
}
main = functools.partial(cifar_pairs.run, PAIR, "pooling_on_cifar")

if __name__ == "__main__":
    experiment.cli(main, __doc__)
