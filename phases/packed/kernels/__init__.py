"""Matrix products with ternary weights that stay at 2 bits in memory.

    kernel = choose_kernel(torch.device("cpu"))      # logs what runs, once
    prepared = kernel.prepare(lattice)
    y = kernel.linear(x, prepared, bias)

`native` (C++, built in 3 s on first use) is the fast way of processors, `int4` (torch's own) stands in for it where
there is no compiler, `triton` is that of GPUs, and `exact` unpacks and calls `F.linear`: the reference, on any device.
(`rows` is another matter: 8-bit heads, see `phases.packed.head`.)

Microseconds for a token through a layer, and how many times as fast as float32 (median of 11 rounds in turn, 128 MiB
of float32 layers between two uses of a weight, so all of them come from memory; EPYC Zen 4 with AVX-512 VNNI, one
thread on a busy machine):

    O × I          float32      native       native, AVX2   int4         int8pack (bf16)   _int_mm
    1024 × 1024     362 (1)     46 (8.8)      42 (8.8)      139 (2.7)     190 (1.9)         130 (2.8)
    2048 × 2048     949 (1)     79 (12.2)     69 (13.9)     282 (3.4)     440 (2.2)         315 (3.0)
    4096 × 4096    3629 (1)    369 (10.0)    299 (12.2)    1106 (3.3)    1507 (2.4)         941 (3.8)
    1024 × 4096    1610 (1)    174 (9.2)     212 (7.4)      446 (3.6)     579 (2.8)         442 (3.8)

Where the packed weights (16 times smaller) stay in the shared cache, native is 12 to 27 times as fast as float32, and
AVX-512 2 to 3 times as fast as AVX2 (4096 × 4096: 130 against 367 µs). One 1024 × 1024 layer over and over, with its
float32 weights in the cache too: 5 times.

Native is about 3 times as fast as int4, takes half its memory, keeps float16 scales and exact integer sums, and takes
any shape and group, which is worth a compiler; int4 rounds scales and sums to bfloat16, so a layer is off by 0.3 %.
Not kept: `_weight_int8pack_mm` and `_int_mm` (8 bits a weight, one scale a row), `torch.compile` of unpacking and
product (2048 × 2048: 1.3 times as fast as float32, 36 s to compile; in integers 5 times slower), prefetching in the
C++ (no gain), a plain loop (`portable`, half as fast as float32, only where there is neither AVX2 nor AVX-512 VNNI).
Against llama.cpp's TQ2_0: `tests/benchmarks/ternary_matmul.py`.
"""

from phases.packed.kernels.activations import Activations
from phases.packed.kernels.choice import Kernel, Preference, choose_kernel
from phases.packed.kernels.layout import Prepared

__all__ = ["Activations", "Kernel", "Preference", "Prepared", "choose_kernel"]
