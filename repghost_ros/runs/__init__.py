"""Work over many frames: classify, replay, evaluate, benchmark."""
