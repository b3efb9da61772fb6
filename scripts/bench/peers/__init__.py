"""Dense engines that our kernels are compared with: one network, one environment and one process for each engine.

`setup.sh` makes the environments, `network` writes a network that all of them read, `prepare` converts it, `worker`
runs one engine, `interleave` measures several in turns. Nothing here imports modicum, and the engines built on JAX
alone import that.
"""
