#!/usr/bin/env python3
"""The comparison of `against-libcachesim`, which runs it: see there.

    against-libcachesim.py REPORT TRACES
"""

import json
import sys

import libcachesim

# Ratios of millions of requests: rounding, and Belady's ties.
POINTS_MAX = 0.02


def ratio(policy, capacity, path):
    reader = libcachesim.TraceReader(path, libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    misses, _ = policy(capacity).process_trace(reader)
    return 1 - misses


def main():
    report = json.load(open(sys.argv[1], encoding="utf-8"))
    names = {"lru": libcachesim.LRU, "s3_fifo": libcachesim.S3FIFO, "belady": libcachesim.Belady}
    worst, count = 0, 0
    for reading in report["readings"]:
        path = f"{sys.argv[2]}/{reading['trace']}.oracleGeneral"
        for line in reading["lines"]:
            for name, policy in names.items():
                theirs = ratio(policy, line["capacity_chunks"], path)
                points = 100 * (line[name] - theirs)
                worst, count = max(worst, abs(points)), count + 1
                print(
                    f"{reading['one_hit']}, SSD {line['ssd_percent']} %, {name}: ours "
                    f"{100 * line[name]:.3f} %, libCacheSim {100 * theirs:.3f} % ({points:+.3f})",
                    flush=True,
                )
    print(f"{count} ratios, largest difference: {worst:.3f} points, {POINTS_MAX} allowed")
    return count == 0 or worst > POINTS_MAX


if __name__ == "__main__":
    sys.exit(main())
