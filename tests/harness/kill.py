"""Run a configuration and kill the process, as the system would, when a method of `Trainer` is called once too often.

python -m tests.harness.kill CONFIG.toml OUT METHOD CALL
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from harness.config import build, file_table
from harness.launch import start
from harness.training import Trainer


def main(config: str, out: str, method: str, call: str) -> None:
    original, calls = getattr(Trainer, method), 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(call):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(Trainer, method, counted)
    start(build(file_table(Path(config)), config), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
