"""`softctm serve`: answer Grand Challenge's invoke calls, with networks loaded once."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from softctm.commands import predict
from softctm.jobs.pairs import load_detector, run_job
from softctm.jobs.server import HOST, PORT, InvokeServer, Job
from softctm.terminal.console import ConsoleProgress

_logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the job's options and the server's own."""
    predict.configure(parser, input_dir=Path("/input"), output_dir=Path("/output"))
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen on (default: {HOST}); 0.0.0.0 where a test asks from another container",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    options = predict.job_options(args)

    def load() -> Job:
        detector = load_detector(options)
        _logger.info("ready: model %s on %s", detector.model.name, detector.device)
        return lambda: run_job(args.input, args.output, options, detector, progress=ConsoleProgress()).summary

    server = InvokeServer((args.host, args.port), load)
    _logger.info("listening on %s:%s, loading the networks", args.host, args.port)
    server.serve_until_stopped()
    return 0
