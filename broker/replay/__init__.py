"""Replays recorded chat rooms through a broker and proves what came of it."""
