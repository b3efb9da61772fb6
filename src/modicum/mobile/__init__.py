"""Ship a compressed network: one portable StableHLO module with its weights in packed form.

`compile` bakes, `Compiled.save` writes a bundle, `load` refuses a damaged one, `verify` runs it on two engines.
"""

from modicum.mobile.compiled import Compiled, compile, load
from modicum.mobile.report import Report, Row
from modicum.mobile.verify import Engine, Verification, verify

__all__ = ["Compiled", "Engine", "Report", "Row", "Verification", "compile", "load", "verify"]
