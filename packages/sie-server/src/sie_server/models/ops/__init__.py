"""The operations that backbones are written in, the plan of a batch, and the engines that run them."""
