"""Benchmarks: programs that a person starts, which print what they measured. Nothing timed is asserted here or in any test.

mbo.py is the main one (`bookmill bench`): its contenders are in mbo_contenders.py and mbo_peers.py, how they are run in mbo_run.py and
mbo_flow.py, tables and targets in mbo_table.py and mbo_targets.py. What a benchmark makes is compared with the generator's truth first:
the speed of a wrong result is of no interest.
"""
