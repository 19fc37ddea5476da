"""Masks: which tokens a student sees, drawn on the device with counted randomness."""
