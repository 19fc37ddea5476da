"""Backbones and heads, written for one device; precision, compilation and parallelism are applied by the engine."""
