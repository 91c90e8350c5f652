#!/usr/bin/env python3
"""Prints columns of a Delta table, a JSON array a row, as DuckDB reads them.

    rows.py FOLDER '[["name", "text" | "micros" | "digest"], …]'

A column that the table does not have is null; a folder that holds no table prints nothing.
"""

import json
import os
import sys

from compare import connect, literal, quoted


def expression(name, how, known):
    if name not in known:
        return "NULL"
    column = quoted(name)
    if how == "micros":
        return f"CAST(epoch_us({column}) AS VARCHAR)"
    if how == "digest":
        return f"sha256(CAST({column} AS VARCHAR))"
    return f"CAST({column} AS VARCHAR)"


def main():
    import duckdb

    folder, columns = sys.argv[1], json.loads(sys.argv[2])
    if not os.path.isdir(os.path.join(folder, "_delta_log")):
        return
    connection = connect(duckdb)
    scan = f"delta_scan({literal(folder)})"
    known = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    wanted = ", ".join(expression(name, how, known) for name, how in columns)
    for row in connection.execute(f"SELECT {wanted} FROM {scan}").fetchall():
        print(json.dumps(row))


if __name__ == "__main__":
    main()
