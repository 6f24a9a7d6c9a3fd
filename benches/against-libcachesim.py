#!/usr/bin/env python3
"""Holds the hit ratio bench's LRU, S3-FIFO and Belady against libCacheSim.

    cargo bench -p nearcast-benches --bench hit-ratio -- --json report.json --traces traces
    pip install libcachesim==0.3.5
    benches/against-libcachesim.py report.json traces

Same requests, same capacities, chunks of one size. Fails when a ratio differs by more than
0.2 points. What differs by design: libCacheSim's Belady always lets in what was missed, ours
may let it pass.
"""

import json
import sys

import libcachesim

POINTS_MAX = 0.2


def ratio(policy, capacity, path):
    reader = libcachesim.TraceReader(path, libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    misses, _ = policy(capacity).process_trace(reader)
    return 1 - misses


def main():
    report = json.load(open(sys.argv[1], encoding="utf-8"))
    names = {"lru": libcachesim.LRU, "s3_fifo": libcachesim.S3FIFO, "belady": libcachesim.Belady}
    worst = 0
    for reading in report["readings"]:
        path = f"{sys.argv[2]}/{reading['trace']}.oracleGeneral"
        for line in reading["lines"]:
            for name, policy in names.items():
                theirs = ratio(policy, line["capacity_chunks"], path)
                points = 100 * (line[name] - theirs)
                worst = max(worst, abs(points))
                print(
                    f"{reading['one_hit']}, SSD {line['ssd_percent']} %, {name}: ours "
                    f"{100 * line[name]:.2f} %, libCacheSim {100 * theirs:.2f} % ({points:+.2f})",
                    flush=True,
                )
    print(f"largest difference: {worst:.2f} points, {POINTS_MAX} allowed")
    return worst > POINTS_MAX


if __name__ == "__main__":
    sys.exit(main())
