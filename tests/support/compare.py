#!/usr/bin/env python3
"""Compares a PostgreSQL table with its Delta table, every column of every row, with a reader that is not lakebed's.

One side is PostgreSQL's own output text, exported in UTC by

    COPY (SELECT <columns> FROM <table>) TO STDOUT (FORMAT csv)        with TimeZone 'UTC', DateStyle 'ISO', bytea_output 'hex'

where NULL is an empty field and '' is a quoted one. The other is read by DuckDB's delta extension and brought into the same
text. Both become tables inside DuckDB, and SQL compares them.

Checked: the lake's columns and their types, the number of rows, no key twice, every value of every row (NULL is not ''), and
year/month/day against the date of the partition column.

Exit 0 prints `equal rows=N columns=M`; exit 1 prints what differs first, naming its key and columns and no value but the key;
exit 2 is wrong usage. Needs duckdb, duckdb-extension-delta of the same version, and pytz.
"""

import argparse
import glob
import json
import os
import re
import sys

PARTITION_COLUMNS = {"day": ["year", "month", "day"], "month": ["year", "month"]}
# PostgreSQL's name of a type (pg_catalog.format_type) to DuckDB's name of the Delta type it becomes; all others are strings.
LAKE_TYPES = {
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "date": "DATE",
    "bytea": "BLOB",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
}
SPELLINGS = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


class Differs(Exception):
    """The two sides are not equal."""


class Usage(Exception):
    """The comparison cannot be made as asked."""


class Column:
    def __init__(self, name, declared):
        plain = re.sub(r"^(timestamp|time)\(\d\)", r"\1", declared.strip().lower())
        self.name = name
        self.kind = SPELLINGS.get(plain, plain)
        self.lake_type = LAKE_TYPES.get(self.kind, "VARCHAR")
        digits = re.fullmatch(r"(?:numeric|decimal)\((\d+)(?:,\s*(-?\d+))?\)", plain)
        if digits:
            precision, scale = int(digits[1]), int(digits[2] or 0)
            if 1 <= precision <= 38 and 0 <= scale <= precision:
                self.lake_type = f"DECIMAL({precision},{scale})"

    @property
    def is_float(self):
        return self.lake_type in ("FLOAT", "DOUBLE")

    def as_server_text(self):
        """SQL that turns the lake's value into the text that PostgreSQL prints for it."""
        column = quoted(self.name)
        if self.lake_type == "BOOLEAN":
            return f"CASE WHEN {column} THEN 't' WHEN NOT {column} THEN 'f' END"
        if self.lake_type == "BLOB":
            return f"'\\x' || lower(hex({column}))"
        if self.lake_type == "DATE":
            return f"strftime({column}, '%Y-%m-%d')"
        if self.lake_type.startswith("TIMESTAMP"):
            text = f"strftime(timezone('UTC', {column}), '%Y-%m-%d %H:%M:%S.%f')"
            zone = " || '+00'" if self.kind == "timestamptz" else ""
            return f"rtrim(rtrim({text}, '0'), '.'){zone}"
        if self.lake_type.startswith("DECIMAL"):
            return f"regexp_replace(CAST({column} AS VARCHAR), '^(-?)\\.', '\\10.')"
        return f"CAST({column} AS VARCHAR)"

    def differs(self):
        """SQL that is true where the two sides `e` and `l` differ. Floats are compared as the numbers their text means: the
        server's shortest text and DuckDB's are different spellings."""
        expected, lake = f"e.{quoted(self.name)}", f"l.{quoted(self.name)}"
        if not self.is_float:
            return f"{expected} IS DISTINCT FROM {lake}"
        expected, lake = f"CAST({expected} AS {self.lake_type})", f"CAST({lake} AS {self.lake_type})"
        sign = f"signbit({expected}) IS DISTINCT FROM signbit({lake}) AND NOT coalesce(isnan({expected}), false)"
        return f"({expected} IS DISTINCT FROM {lake} OR ({sign}))"


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + str(text).replace("'", "''") + "'"


def connect(duckdb):
    import duckdb_extension_delta

    folder = list(duckdb_extension_delta.__path__)[0]
    found = glob.glob(os.path.join(folder, "extensions", f"v{duckdb.__version__}", "**", "delta.duckdb_extension"), recursive=True)
    if not found:
        raise Usage(f"no delta extension for duckdb {duckdb.__version__} below {folder}")
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"LOAD {literal(found[0])}")
    return connection


def check_columns(connection, options, columns):
    described = connection.execute(f"DESCRIBE SELECT * FROM delta_scan({literal(options.delta)})").fetchall()
    found = {row[0]: row[1] for row in described}
    expected = {column.name: column.lake_type for column in columns}
    expected.update({name: "VARCHAR" for name in PARTITION_COLUMNS[options.partition_by]})
    for name in expected:
        if name not in found:
            raise Differs(f"column {name} is missing in the lake")
        if found[name] != expected[name]:
            raise Differs(f"column {name} is {found[name]} in the lake, {expected[name]} is expected")
    for name in found:
        if name not in expected and name not in [*options.retired, *options.besides]:
            raise Differs(f"column {name} is in the lake only")


def load(connection, options, columns):
    """Both sides as text, in the tables `expected` and `lake`."""
    names = ", ".join(f"{literal(column.name)}: 'VARCHAR'" for column in columns)
    connection.execute(
        f"""CREATE TEMP TABLE expected AS SELECT * FROM read_csv({literal(options.export)},
            columns = {{{names}}}, auto_detect = false, header = {str(options.header).lower()}, delim = ',', quote = '"',
            escape = '"', nullstr = '', allow_quoted_nulls = false, new_line = '\\n', strict_mode = true,
            max_line_size = 67108864, parallel = false, encoding = 'utf-8')"""
    )
    texts = ", ".join(f"{column.as_server_text()} AS {quoted(column.name)}" for column in columns)
    # The aliases must not shadow the columns that the partition's date is made of.
    folder = ", ".join(f"{quoted(name)} AS {quoted('folder ' + name)}" for name in PARTITION_COLUMNS[options.partition_by])
    connection.execute(
        f"""CREATE TEMP TABLE lake AS SELECT {texts}, {folder}, {date_sql(options, columns)} AS "folder date"
            FROM delta_scan({literal(options.delta)})"""
    )


def date_sql(options, columns):
    column = next(column for column in columns if column.name == options.partition_column)
    if column.lake_type == "DATE":
        return quoted(column.name)
    if not column.lake_type.startswith("TIMESTAMP"):
        raise Usage(f"the partition column {column.name} is no date and no timestamp")
    zone = options.time_zone if column.kind == "timestamptz" else "UTC"
    return f"CAST(timezone({literal(zone)}, {quoted(column.name)}) AS DATE)"


def check_counts(connection):
    expected, lake = (connection.execute(f"SELECT count(*) FROM {side}").fetchone()[0] for side in ("expected", "lake"))
    if expected != lake:
        # Which rows they are is said by the comparison by key; this is the whole story where there is no key.
        return expected, lake, f"{expected} rows in the source, {lake} in the lake"
    return expected, lake, None


def key_text(options, row):
    return " ".join(f"{name}={value}" for name, value in zip(options.key, row))


def check_keys(connection, options):
    keys = ", ".join(quoted(name) for name in options.key)
    for side, place in (("expected", "source"), ("lake", "lake")):
        twice = connection.execute(
            f"SELECT {keys}, count(*) FROM {side} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
        ).fetchone()
        if twice:
            raise Differs(f"the key {key_text(options, twice)} is {twice[-1]} times in the {place}")


def check_rows(connection, options, columns, counted):
    """The first key that only one side has, or whose columns differ."""
    same_key = " AND ".join(f"e.{quoted(name)} = l.{quoted(name)}" for name in options.key)
    for one, other, verdict in (("e", "l", "is missing in the lake"), ("l", "e", "is in the lake only")):
        sides = {"e": "expected e", "l": "lake l"}
        keys = ", ".join(f"{one}.{quoted(name)}" for name in options.key)
        alone = connection.execute(
            f"SELECT {keys}, count(*) OVER () FROM {sides[one]} ANTI JOIN {sides[other]} ON {same_key} ORDER BY ALL LIMIT 1"
        ).fetchone()
        if alone:
            total = f" ({counted})" if counted else ""
            raise Differs(f"the key {key_text(options, alone)} {verdict}, one of {alone[-1]}{total}")
    keys = ", ".join(f"e.{quoted(name)}" for name in options.key)
    columns = [column for column in columns if column.name not in options.besides]
    tests = [column.differs() for column in columns]
    row = connection.execute(
        f"""SELECT {keys}, {", ".join(tests)}, count(*) OVER () FROM expected e JOIN lake l ON {same_key}
            WHERE {" OR ".join(tests)} ORDER BY ALL LIMIT 1"""
    ).fetchone()
    if row:
        flags = row[len(options.key) : -1]
        names = [column.name for column, differs in zip(columns, flags) if differs]
        raise Differs(f"the key {key_text(options, row)} differs in {', '.join(names)}, one of {row[-1]} such rows")


def check_rows_without_key(connection, columns, counted):
    """A table without a key is a multiset of rows."""
    def side(name):
        values = ", ".join(
            f"CAST({quoted(column.name)} AS {column.lake_type})" if column.is_float else quoted(column.name)
            for column in columns
        )
        return f"SELECT {values} FROM {name}"

    for one, other, place in (("expected", "lake", "source"), ("lake", "expected", "lake")):
        query = f"SELECT count(*) FROM ({side(one)} EXCEPT ALL {side(other)})"
        alone = connection.execute(query).fetchone()[0]
        if alone:
            raise Differs(f"{alone} rows are in the {place} only{f' ({counted})' if counted else ''}")


def check_folders(connection, options):
    date = '"folder date"'
    parts = {"year": 4, "month": 2, "day": 2}
    for name in PARTITION_COLUMNS[options.partition_by]:
        expected = f"lpad(CAST({name}({date}) AS VARCHAR), {parts[name]}, '0')"
        keys = ", ".join(quoted(key) for key in options.key) or "1"
        wrong = connection.execute(
            f"""SELECT {keys}, count(*) OVER () FROM lake WHERE {quoted('folder ' + name)} IS DISTINCT FROM {expected}
                ORDER BY ALL LIMIT 1"""
        ).fetchone()
        if wrong:
            key = f"the key {key_text(options, wrong)}" if options.key else "a row"
            raise Differs(f"{key} is in a folder of another {name}, one of {wrong[-1]} such rows")


def compare(connection, options, columns):
    check_columns(connection, options, columns)
    load(connection, options, columns)
    rows, _, counted = check_counts(connection)
    if options.key:
        check_keys(connection, options)
        check_rows(connection, options, columns, counted)
    else:
        check_rows_without_key(connection, columns, counted)
    if counted:
        raise Differs(counted)
    check_folders(connection, options)
    return rows


def parse_columns(text):
    if text.startswith("@"):
        with open(text[1:], encoding="utf-8") as file:
            text = file.read()
    try:
        pairs = json.loads(text)
        return [Column(str(name), str(declared)) for name, declared in pairs]
    except (ValueError, TypeError) as error:
        raise Usage(f'--columns is not [["name", "type"], …]: {error}') from error


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("delta", help="path of the Delta table")
    parser.add_argument("export", help="file with the COPY of the source in CSV format")
    parser.add_argument("--columns", required=True, help='[["name", "type"], …] as JSON, or @FILE; format_type() names, in order')
    parser.add_argument("--key", default="", help="columns of the key, by commas; without one, rows are compared as a multiset")
    parser.add_argument("--partition-column", required=True)
    parser.add_argument("--partition-by", choices=sorted(PARTITION_COLUMNS), default="day")
    parser.add_argument("--time-zone", default="UTC", help="in which a timestamptz partition column is cut")
    parser.add_argument("--retired", default="", help="columns that only the lake may still have, by commas; not compared")
    parser.add_argument("--besides", default="", help="the same, and columns of both whose values are not compared")
    parser.add_argument("--header", action="store_true", help="the export begins with a line of names")
    options = parser.parse_args()
    options.key = [name for name in options.key.split(",") if name]
    options.retired = [name for name in options.retired.split(",") if name]
    options.besides = [name for name in options.besides.split(",") if name]
    columns = parse_columns(options.columns)
    names = [column.name for column in columns]
    for name in [*options.key, options.partition_column]:
        if name not in names:
            raise Usage(f"{name} is not among --columns")
    if not os.path.isfile(options.export):
        raise Usage(f"no export at {options.export}")
    return options, columns


def main():
    try:
        options, columns = parse_arguments()
        try:
            import duckdb
        except ImportError as error:
            raise Usage(f"{error}: pip install duckdb==1.5.5 duckdb-extension-delta==1.5.5 pytz") from error
        connection = connect(duckdb)
    except Usage as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    try:
        rows = compare(connection, options, columns)
    except Differs as error:
        print(error)
        return 1
    except Usage as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    except duckdb.ConversionException:
        print("unreadable: a value does not have its column's type")
        return 1
    except duckdb.Error as error:
        # DuckDB quotes lines of the export in its messages: the first line says what, the others show values.
        print(f"unreadable: {str(error).splitlines()[0]}")
        return 1
    print(f"equal rows={rows} columns={len(columns)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
