"""Waveforms to log-mel, batched, on whatever device the waveforms are on."""
