"""
What it withstands: ``python -m tests.stress NAME``, see ``--list``.

`__main__` reads the options. Each scenario (`crowd`, `attacks`, `faults`, `fuzz`) is a module with
a function `run` that takes a plan, which says how much, and `Findings`, which it tells what it did,
its figures, and whether what is to be shown was shown. Servers, clients and attackers run in
processes of their own, by the harness of `tests.benchmarks`: `server` is what is attacked,
`clients` who logs in, `strangers` and `attackers` who does not, `member` and `cable` who is cut
off, `fuzzing` what the fuzzer runs. All is on loopback, bounded in time and count, and every
process is ended, also on Ctrl-C.

`tests.stress.smoke` runs the short plans, which judge no time.
"""
