"""c2ftool trains audio spectrogram transformers efficiently: one spec, one engine, the cost counted."""

__version__ = "0.1.0"
