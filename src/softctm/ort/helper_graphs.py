"""The sessions of the small graphs between the networks: built when first needed, equal ones shared."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from softctm.ort.runtime import Runtime, Session


class HelperGraphs:
    """Opens what a function builds, once for each set of arguments."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions: dict[object, Session] = {}

    def __call__(self, build: Callable[..., bytes], *arguments: Hashable) -> Session:
        """The session of `build(*arguments)`."""
        if (build, arguments) not in self._sessions:
            model = build(*arguments)
            if model not in self._sessions:
                self._sessions[model] = self._runtime.helper(model, build.__name__.replace("_", " "))
            self._sessions[build, arguments] = self._sessions[model]
        return self._sessions[build, arguments]
