"""`make chaos`: the proof of what the README promises, by trying to break it."""
