"""Parts of `scripts/bench/spiking.py`: the network, its memory, its time, and the peers."""
