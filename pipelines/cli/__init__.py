"""The command line ``detector``: it reads options, calls one job, prints what the job says.

Exit codes: 0 done; 2 the command or the configuration is wrong; 1 the job failed; 130 interrupted.
Heavy packages are imported inside the commands, so that ``--help`` is quick and scoring loads no TensorFlow.
"""

from __future__ import annotations

from pipelines.cli import alerts, audit, jobs, keys, models, rules, service, simulate
from pipelines.cli.program import SERVE, app

__all__ = ["app"]

jobs.register(app)
simulate.register(app)
app.add_typer(alerts.alerts_app, name="alerts", rich_help_panel=SERVE)
app.add_typer(rules.rules_app, name="rules", rich_help_panel=SERVE)
app.add_typer(keys.keys_app, name="keys", rich_help_panel=SERVE)
service.register(app)
audit.register(app)
models.register(app)
