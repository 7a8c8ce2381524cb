"""`ferserve bench`: how fast the parts of the work are, and what a gateway makes of a load."""

import typer

from ferserve.serving.commands.bench_capacity import capacity
from ferserve.serving.commands.bench_load import load
from ferserve.serving.commands.bench_realtime import realtime
from ferserve.serving.commands.bench_stages import stages
from ferserve.serving.commands.bench_viewers import viewers

bench = typer.Typer(help="Measure the parts of the work, and a gateway under a load.")
for command in (stages, load, capacity, realtime, viewers):
    bench.command(command.__name__)(command)
