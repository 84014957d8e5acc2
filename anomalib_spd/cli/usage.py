"""A parser of options whose errors are one line."""

import argparse
import re
from typing import NoReturn

from anomalib_spd.spelling import did_you_mean


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with options, and with a misspelt command which was meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2.

        Args:
            message: what is wrong.
        """
        similar = ""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            similar = did_you_mean(choice[1], re.findall(r"[^', ]+", choice[2]))
        self.exit(2, f"error: {message}{similar} ('{self.prog} --help' has all options)\n")
