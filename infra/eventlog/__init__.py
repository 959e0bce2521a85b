"""eventlog: the log that every event goes through, behind one protocol; redis_streams is the embedded one."""
