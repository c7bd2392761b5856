"""Stub."""

import argparse

from daemon.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Stub."""


def run(args: argparse.Namespace, config: Config) -> int:
    return 0
