"""doctor."""
import argparse
def configure(parser: argparse.ArgumentParser) -> None: ...
def execute(args: argparse.Namespace) -> int: return 0
