"""Attention kernels alone: how fast each is, from which length on linear ones win, how far from the roofline."""
