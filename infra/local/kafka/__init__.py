"""kafka: Apache Kafka's programs, fetched once from Maven Central by the versions that pom.xml names."""
