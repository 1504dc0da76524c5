"""What the children of a host have in common, as processes: the plan from stdin, logging, and errors that are told."""

import sys
from collections.abc import Callable

from kms_fast.cli.logs import start_logging
from kms_fast.errors import KmsFastError, translate_os_error
from kms_fast.host.child import ChildPlan, Ended, read_plan, tell


def run_child(work: Callable[[ChildPlan], None]) -> None:
    """Do ``work`` by the plan on stdin; exit code 1 after an error that the supervisor was told."""
    plan = read_plan()
    if plan is None:
        return
    try:
        start_logging(plan.settings.log_level, plan.settings.log_format, plan.settings.log_file, plan.name)
        work(plan)
    except Ended:
        return
    except (KmsFastError, OSError) as error:
        tell("failed", explain(error))
        sys.exit(1)


def explain(error: KmsFastError | OSError) -> KmsFastError:
    """The user's error behind one; raises what is none."""
    explained = error if isinstance(error, KmsFastError) else translate_os_error(error)
    if explained is None:
        raise error
    return explained
