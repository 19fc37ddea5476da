"""Augmentation of a batch on its device, in one fixed order (build.py), with counted randomness."""
