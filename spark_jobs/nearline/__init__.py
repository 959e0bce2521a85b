"""nearline: the declared features counted by Spark: from the archive, to prove or rebuild the state, and from Kafka as it comes."""
