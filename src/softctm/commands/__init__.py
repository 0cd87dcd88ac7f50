"""One module a subcommand: `configure(parser)` adds its options, `run(args)` does the work."""
