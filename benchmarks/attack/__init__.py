"""Attacks on a running `ragq up`, as a stranger on the network, a hostile page or a greedy client would make them."""
