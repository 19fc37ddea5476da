"""One engine: phases, steps, checkpoints, evaluation, tracking. What a loss is, is said in c2ftool/objectives."""
