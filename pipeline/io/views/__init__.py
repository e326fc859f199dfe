"""The lake in SQL: views over the catalog's files, bound to no more files than a query needs.

* `tables`: which views there are, their columns, and their SQL over a list of files;
* `pruning`: from the plan of a query to the files that it can need;
* `session`: one reader of the lake, read-only;
* `export`: the views as a DuckDB file for other clients.
"""
