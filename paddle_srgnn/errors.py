"""The errors that a person can do something about; the tools turn them into exit codes."""


class InputError(ValueError):
    """Bad usage or bad input: the message names what was found, what was expected and what to do. Exit code 2."""


class WorkFailed(RuntimeError):
    """The input was fine and the work still failed, for example a diverged training. Exit code 1."""


class MissingPaddle(ImportError):
    """PaddlePaddle is not installed, and this part needs it. Exit code 2."""
