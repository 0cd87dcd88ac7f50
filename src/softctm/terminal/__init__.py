"""What a user of the command line sees: log, results, progress, errors; none of it can cost a result."""
