"""The type checker behind the import hook: beartype, with PEP 484's numeric tower (an int passes as a float)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
