"""A Python that has loaded Paddle and the commands, and forks a process for each piece of code that it is asked to run.

A real process then starts in milliseconds instead of seconds. Nothing has been computed before the fork, so Paddle has
no threads that it could lose.
"""

import json
import os
import signal
import socket
import sys

from paddle_srgnn.runtime import tune

tune()

import paddle_srgnn.serving.recommender  # noqa: E402
import paddle_srgnn.training.train  # noqa: E402, F401

asked = socket.socket(fileno=int(sys.argv[1]))
while (request := socket.recv_fds(asked, 1 << 16, 3))[0]:
    message, descriptors, *_ = request
    if (pid := os.fork()) == 0:
        asked.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        code, sys.argv = json.loads(message)
        exec(code, {"__name__": "__main__"})
        sys.exit()
    for descriptor in descriptors:
        os.close(descriptor)
    asked.sendall(f"{pid}\n".encode())
    asked.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
