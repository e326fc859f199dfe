"""All that touches the world: Kafka, files, the catalog. Stages never import from here."""
