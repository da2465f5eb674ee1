"""Tensors in, tensors out: patches and windows, the inpainting transformer, its loss, its anomaly map."""
