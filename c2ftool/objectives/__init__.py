"""What a loss is. Objectives never loop, log, save or schedule; the engine calls them in its one loop."""
