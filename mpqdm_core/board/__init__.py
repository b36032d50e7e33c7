"""The ablation board: runs that are kept, sweeps that fill it, and what is written about them.

run, reading        a kept run as a document, and reading one from a stranger
store, schema, blobs    where runs are kept, safe under several processes
archive             runs as a zip, out and in
sweep, costs        which cells there are and what they cost
cells, laboratory, measured    computing them
engine              who computes them
board, front        what a table of runs shows: differences, intervals, the Pareto front
tables, page, script    CSV, JSON, LaTeX, a standalone page, a script that makes a run again
precompute          the board that ships with the page
"""
