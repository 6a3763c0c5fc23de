"""The supernet: mixed operations, sink-connecting and its alternatives, the distribution over them."""
