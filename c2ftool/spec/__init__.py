"""The spec language: what a user may write, how it is read, merged, checked and resolved. No torch, no numpy here."""
