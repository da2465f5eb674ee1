"""The licence of MVTec AD: shown before anything is fetched, and accepted by word or option."""

import sys

import typer

from profiles.errors import ConfigError

WORDS = """\
MVTec AD, copyright 2019 MVTec Software GmbH, is licensed under Creative Commons
Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0):
    https://creativecommons.org/licenses/by-nc-sa/4.0/
You may copy and change it, for purposes that are not commercial. You may not
  - use it commercially (MVTec is to be asked for that);
  - pass it or what you make of it on without naming its authors, this licence and what you changed;
  - pass on what you make of it under any other licence, or restrict further what this one allows.
Work that uses it cites Bergmann, Fauser, Sattlegger, Steger: A Comprehensive Real-World Dataset for
Unsupervised Anomaly Detection, CVPR 2019. The licence's whole text lies in each category's license.txt."""

OPTION = "--accept-licence"


def accept(*, accepted: bool) -> None:
    """Show the licence and make sure that someone accepts it: by the option, or by typing so on a terminal.

    Raises:
        ConfigError: nobody did.

    """
    typer.echo(WORDS, err=True)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise ConfigError("licence", got="no answer", expected="that you accept it", fix=f"add {OPTION}")
    answer = input("Do you accept this licence? Type yes to do so: ")
    if answer.strip().lower() != "yes":
        raise ConfigError("licence", got=repr(answer), expected="yes", fix="accept it, or do without the data set")
