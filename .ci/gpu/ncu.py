#!/usr/bin/env python3
"""Sums up a table of ncu --csv --page raw by kernel, the slowest first: ncu.py FILE"""
import csv, sys

# ncu writes its own lines, and those of the program, before the table
lines = open(sys.argv[1], errors="replace").read().splitlines()
head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
if head is None:
    sys.exit(f"{sys.argv[1]}: no table of ncu in it: " + " ".join(lines[-3:])[-300:])
table = list(csv.DictReader(lines[head:]))
units, rows = (table[0], table[1:]) if table and not table[0]["ID"] else ({}, table)
TIME = "gpu__time_duration.sum"
SCALE = {"ns": 1e-3, "us": 1.0, "usecond": 1.0, "nsecond": 1e-3, "ms": 1e3, "msecond": 1e3, "second": 1e6, "s": 1e6}


def number(row, name):
    try:
        return float(row.get(name, "").replace(",", ""))
    except ValueError:
        return 0.0


kernels = {}
for row in rows:
    kernels.setdefault((row.get("Kernel Name", "?"), row.get("Grid Size", "")), []).append(row)
micro = SCALE.get(units.get(TIME, "us"), 1.0)
total = sum(number(r, TIME) for r in rows) * micro
columns = [("dram %", "dram__throughput.avg.pct_of_peak_sustained_elapsed"), ("sm %", "sm__throughput.avg.pct_of_peak_sustained_elapsed"),
           ("tensor %", "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active"), ("issue %", "smsp__issue_active.avg.pct_of_peak_sustained_active"),
           ("warps %", "sm__warps_active.avg.pct_of_peak_sustained_active"), ("regs", "launch__registers_per_thread")]
print(f"{'kernel':<36}{'grid':<20}{'calls':>6}{'us each':>9}{'share':>8}" + "".join(f"{c:>10}" for c, _ in columns))
for (name, grid), calls in sorted(kernels.items(), key=lambda k: -sum(number(r, TIME) for r in k[1]))[:24]:
    time = sum(number(r, TIME) for r in calls) * micro
    means = "".join(f"{sum(number(r, c) for r in calls) / len(calls):>10.1f}" for _, c in columns)
    print(f"{name[:35]:<36}{grid[:19]:<20}{len(calls):>6}{time / len(calls):>9.1f}{100 * time / max(total, 1e-9):>6.1f} %{means}")
