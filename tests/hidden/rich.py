"""Before `rich` on the path of programs that tests start: only tools of the development need it, and structlog imports it if it is there."""

raise ModuleNotFoundError(name="rich")
