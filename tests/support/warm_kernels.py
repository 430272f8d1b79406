"""A plugin of pytest: nbval's kernels are forked from a process that knows torch.

Ninety notebooks would each import it anew, for four seconds. Of the course itself
nothing is imported before the fork. Without this plugin nbval finds the same.
"""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from jupyter_client.provisioning import local_provisioner

TESTS = str(Path(__file__).resolve().parents[1])
IMPORTED = ["torch", "torchvision", "torch._dynamo", "ipykernel.kernelapp"]


def _kernel(arguments, folder, environment):
    """Becomes a kernel, as if `python -m ipykernel_launcher` had been called."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = ["", *(p for p in sys.path if not p.startswith(TESTS))]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=arguments, parent_handle=os.getppid())


class ForkedKernel:
    """What jupyter_client needs of a `Popen`, of a forked process."""

    stdin = stdout = stderr = None

    def __init__(self, command, cwd, env, **_):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        arguments = (command[command.index("-f") :], cwd, env)
        self.process = context.Process(target=_kernel, args=arguments)
        self.process.start()
        self.pid = self.process.pid
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            time.sleep(0.01)  # or whoever ends its group would end ours

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


if "forkserver" in multiprocessing.get_all_start_methods():  # not on Windows
    local_provisioner.launch_kernel = ForkedKernel
