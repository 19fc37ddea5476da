"""Published checkpoints: where they are, how they are read, and what their tensors are called here."""
