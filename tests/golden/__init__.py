"""Named cases that each stage, rule and filter of a wired cascade decides."""
