"""What the choice of backend changes in how a program should be cut."""

import jax


def loops_on_device() -> bool:
    """Whether several training steps are best one compiled loop: on an accelerator, not on a CPU.

    XLA's CPU compiler brings convolutions into the layout of its fast kernels at the top level of a program alone, so
    that the same step is several times slower inside a loop, while a dispatch costs little.
    `scripts/bench/convolution_in_loop.py` measures both; its results lie beside it.
    """
    return jax.default_backend() != "cpu"
