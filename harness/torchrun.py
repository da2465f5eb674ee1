"""torchrun, with an exit code that says whether the machine is to blame: `python -m harness.torchrun ...`.

torchrun itself ends with 1 whatever its processes ended with.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from profiles.errors import BenchError, MachineError


def main(words: list[str]) -> int:
    """Run torchrun; return the exit code of a process that the machine stopped, if one did."""
    try:
        torchrun(words)
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        codes = {failure.exitcode for failure in error.failures.values()}
        return MachineError.exit_code if MachineError.exit_code in codes else BenchError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
