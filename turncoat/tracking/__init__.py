"""Tracking that never hurts: rows to disk first, then MLflow.

A stage writes its rows to a spool file (`turncoat.tracking.spool`, standard library only: importing MLflow costs a
process two seconds). One background process a checkout (`turncoat.tracking.forwarder`) sends them to MLflow
(`turncoat.tracking.store`). So training never waits for a database or a server, and a store has one writer.

    with tracking.open("digits/pgd/0", fingerprint, settings=settings) as tracker:
        tracker.log(epoch, {"loss": 0.4, "validation_robust": 0.71})

See docs/tracking.md.
"""

from turncoat.tracking.content import log_record, log_report, log_training, measures, summary
from turncoat.tracking.paths import destination
from turncoat.tracking.relay import flush
from turncoat.tracking.spool import Tracker, open

__all__ = ["Tracker", "destination", "flush", "log_record", "log_report", "log_training", "measures", "open", "summary"]
