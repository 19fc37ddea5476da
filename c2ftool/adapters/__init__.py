"""Small trained parts on a frozen body: parallel and look-aside adapters, LoRA; what learns beside them."""
