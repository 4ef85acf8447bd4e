"""Attacks on a running `ragq up`, by a stranger on the network, a hostile page or a greedy client."""
