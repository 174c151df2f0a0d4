"""Benchmarks: programs that a person starts, which print what they measured. Nothing timed is asserted here or in any test.

mbo_flow.py is the main one; stages.py and measure.py are its parts. What a benchmark makes is compared with the generator's truth first:
the speed of a wrong result is of no interest.
"""
