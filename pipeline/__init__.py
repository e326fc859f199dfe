"""Stillwatch: the access logs of an LLM API, from Kafka to Parquet, and what they say of harvesting."""
