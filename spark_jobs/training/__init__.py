"""training: the ranker, learnt from what users did after a cut in time and judged on what they did after a later one."""
