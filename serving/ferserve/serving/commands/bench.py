"""`ferserve bench`: what the parts cost, what a gateway does under a load, and how many gateways a load needs."""

import typer

from ferserve.serving.commands.bench_capacity import capacity
from ferserve.serving.commands.bench_efficiency import efficiency
from ferserve.serving.commands.bench_load import load
from ferserve.serving.commands.bench_plan import plan
from ferserve.serving.commands.bench_realtime import realtime
from ferserve.serving.commands.bench_score import score
from ferserve.serving.commands.bench_stages import stages
from ferserve.serving.commands.bench_viewers import viewers

bench = typer.Typer(help="Measure the parts of the work, a gateway under a load, and how many of it a load needs.")
for command in (stages, score, load, efficiency, capacity, plan, realtime, viewers):
    bench.command(command.__name__)(command)
