"""The JSON Schemas that Stillwatch reads and writes by, and example payloads with their expected rows."""
