"""`softctm serve`: answer Grand Challenge's invoke calls, with networks loaded once."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands import predict
from softctm.jobs.pairs import load_detector, run_job
from softctm.jobs.server import HOST, PORT, InvokeServer, Job


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
        print(f"ready: model {detector.model.name} on {detector.device}", flush=True)
        return lambda: run_job(args.input, args.output, options, detector).summary

    server = InvokeServer((args.host, args.port), load)
    print(f"listening on {args.host}:{args.port}, loading the networks", flush=True)
    server.serve_until_stopped()
    return 0
