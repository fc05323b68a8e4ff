"""The baseline: rows of 1 KiB into SQLite, WAL, synchronous=FULL; prints rate and latencies."""
import json
import os
import sqlite3
import sys
import time

path, seconds, rows = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
db = sqlite3.connect(path, isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("pragma synchronous=full")
db.execute("create table events (id integer primary key, body blob not null)")
done, took, begin = 0, [], time.perf_counter()
while time.perf_counter() - begin < seconds:
    bodies = [(os.urandom(512).hex().encode(),) for _ in range(rows)]
    begun = time.perf_counter()
    db.execute("begin immediate")
    db.executemany("insert into events (body) values (?)", bodies)
    db.execute("commit")
    took.append(time.perf_counter() - begun)
    done += rows
elapsed = time.perf_counter() - begin
took.sort()
at = lambda part: round(took[min(len(took) - 1, int(len(took) * part))] * 1e6)
print(json.dumps({
    "rate": done / elapsed, "count": done, "p50_us": at(0.5), "p99_us": at(0.99), "sqlite": sqlite3.sqlite_version,
}))
