"""The packages of the extra `conference`: av, constriction and skimage."""

import functools

from modicum.core import optional

package = functools.partial(optional.package, extra="conference")
