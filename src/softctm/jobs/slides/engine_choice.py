"""Which engine looks at slides: this process, or the workers of a cluster."""

from __future__ import annotations

from softctm.jobs.slides.engine import Engine, LocalEngine, load_slide_detector
from softctm.jobs.slides.options import SlideOptions


def open_engine(options: SlideOptions) -> Engine:
    """The engine that the options ask for.

    Raises
    ------
    ModelError, DeviceError, UsageError
    """
    if options.workers is not None or options.scheduler is not None:
        from softctm.jobs.slides.cluster import ClusterEngine  # Dask is imported only where it is used

        return ClusterEngine(options)
    chosen = options.for_this_machine()
    return LocalEngine(load_slide_detector(chosen), chosen)
