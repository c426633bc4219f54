"""Sets how torch's threads wait for one another.

Torch computes with OpenMP: at the end of each operator a thread that is done waits for the others. GNU's library, which
torch's wheels for Linux bring, lets it spin for some milliseconds before it sleeps. Where other processes want the same
cores, a thread that spins keeps them from the very thread that it waits for, at the end of every operator, and training
becomes many times slower. A thread that sleeps at once makes a quiet machine slower instead. So it spins for about the
time that waking up takes. `python -m nibble.bench threads` measures each way here.

The C++ kernels compute on the same threads (`torch::stable::parallel_for`), and wait the same way.
"""

import os

VARIABLE = "GOMP_SPINCOUNT"
# Turns of a loop, together about a tenth of a millisecond. A step of int4 training on two cores took, alone, 1.00 times
# as long as with OpenMP's own waiting (1.33 times with 1,000 turns); beside other work, at a load of ten, 1.4 s, where
# OpenMP's own waiting took 9.4 s and one thread 0.9 s.
SPINS = "10000"
# A user who sets one of these has chosen.
CHOICES = (VARIABLE, "OMP_WAIT_POLICY")


def spin_briefly() -> None:
    """Set the environment for torch, which reads it when it is first imported, and for processes that start later."""
    if not any(name in os.environ for name in CHOICES):
        os.environ[VARIABLE] = SPINS


def waiting() -> str:
    """What OpenMP is told about waiting, for `nibble.commands.info`."""
    return ", ".join(f"{name}={os.environ[name]}" for name in CHOICES if name in os.environ)
