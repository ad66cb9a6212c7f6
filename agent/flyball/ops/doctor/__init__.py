"""What is wrong with this machine for inference, and what to do about it.

finding.py   a check, its verdict, and the loop over all of them
machine.py   where everything is looked up; account.py: who the daemon runs as, and what it may open
installation.py, devices.py, kernel.py, memory.py, power.py, heat.py   the checks
catalog.py   their list

files of the kernel and of /etc -> check(machine) -> Verdict -> Finding -> exit code. Never changes anything on the
machine, never asks the daemon.
"""

from flyball.ops.doctor.catalog import CHECKS
from flyball.ops.doctor.finding import Check, Finding, Severity, diagnose, exit_code, worst
from flyball.ops.doctor.machine import Machine, this_machine

__all__ = ["CHECKS", "Check", "Finding", "Machine", "Severity", "diagnose", "exit_code", "this_machine", "worst"]
