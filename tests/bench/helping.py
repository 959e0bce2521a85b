"""helping: a bench's help: its docstring as it is written, and each option's default."""

from __future__ import annotations

import argparse


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Given to a parser as `formatter_class`."""
