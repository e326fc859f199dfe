"""The benchmarks of `make bench`: Stillwatch against the programs named in docs/benchmarks.md, on Apache Kafka.

`python -m tests.bench --help` says what there is; each table of docs/benchmarks.md is written by one module here.
"""
