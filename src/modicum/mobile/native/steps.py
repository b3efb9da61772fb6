"""C text of everything that is no product: copies between layouts, pooling, means, sums, halos."""

from modicum.mobile.native.emit import activated
from modicum.mobile.native.layout import Planes


def _rows(name: str, body: str, count: int) -> str:
    """A loop over `count` independent pieces of work, of which a thread does its share; `name` numbers them."""
    return (
        f"const int first = (int)((int64_t){count} * part / parts);\n"
        f"const int last = (int)((int64_t){count} * (part + 1) / parts);\n"
        f"for (int {name} = first; {name} < last; ++{name}) {{\n{body}\n}}"
    )


def _image(name: str, base: str, planes: Planes, kind: str = "const float") -> str:
    """A pointer to the first number of row `y` of a block; C declares `block` and `y` before."""
    inside = planes.halo * planes.row + planes.halo * planes.lanes
    return f"{kind} *{name} = {base} + (size_t)block * {planes.plane} + y * {planes.row} + {inside};"


def halo(planes: Planes, name: str) -> str:
    """Zeros around an image, in each of its blocks."""
    if not planes.halo:
        return ""
    thick = planes.halo * planes.row + planes.halo * planes.lanes
    body = f"""float *b = {name} + (size_t)block * {planes.plane};
for (int i = 0; i < {thick}; ++i) b[i] = 0;
for (int y = 0; y < {planes.height - 1}; ++y) {{
  float *e = b + {thick} + (size_t)y * {planes.row} + {planes.width * planes.lanes};
  for (int i = 0; i < {2 * planes.halo * planes.lanes}; ++i) e[i] = 0;
}}
float *e = b + {thick + (planes.height - 1) * planes.row + planes.width * planes.lanes};
for (int i = 0; i < {thick}; ++i) e[i] = 0;"""
    return "{\n" + _rows("block", body, planes.blocks) + "\n}"


def gather(planes: Planes, channels: int) -> str:
    """Channels last and dense to blocks of channels: what comes in."""
    lanes = planes.lanes
    if lanes == channels:
        # rows have the same numbers in the same order
        body = f"""const int block = 0, y = row;
{_image("q", "out", planes, "float")}
const float *p = in + (size_t)y * {planes.width * channels};
for (int i = 0; i < {planes.width * channels}; ++i) q[i] = p[i];"""
        return _rows("row", body, planes.height)
    if channels % lanes == 0:
        # whole vectors, from memory that may begin anywhere
        body = f"""const int block = 0;
{_image("q", "out", planes, "float")}
const float *p = in + (size_t)y * {planes.width * channels};
for (int x = 0; x < {planes.width}; ++x)
  for (int c = 0; c < {channels}; c += LANES) {{
    float *at = q + (size_t)(c / {lanes}) * {planes.plane} + x * {lanes} + c % {lanes};
    *(vf *)at = *(const vfu *)(p + x * {channels} + c);
  }}"""
        return _rows("y", body, planes.height)
    body = f"""const int block = row / {planes.height}, y = row % {planes.height};
{_image("q", "out", planes, "float")}
const float *p = in + (size_t)y * {planes.width * channels} + block * {lanes};
const int real = {channels} - block * {lanes} < {lanes} ? {channels} - block * {lanes} : {lanes};
for (int x = 0; x < {planes.width}; ++x) {{
  for (int c = 0; c < real; ++c) q[x * {lanes} + c] = p[x * {channels} + c];
  for (int c = real; c < {lanes}; ++c) q[x * {lanes} + c] = 0;
}}"""
    return _rows("row", body, planes.blocks * planes.height)


def scatter(planes: Planes) -> str:
    """Blocks of channels to channels last and dense: what goes out."""
    lanes, channels = planes.lanes, planes.channels
    if channels % lanes == 0:
        body = f"""const int block = 0;
{_image("p", "in", planes)}
float *q = out + (size_t)y * {planes.width * channels};
for (int x = 0; x < {planes.width}; ++x)
  for (int c = 0; c < {channels}; c += LANES) {{
    const float *at = p + (size_t)(c / {lanes}) * {planes.plane} + x * {lanes} + c % {lanes};
    *(vfu *)(q + x * {channels} + c) = *(const vf *)at;
  }}"""
        return _rows("y", body, planes.height)
    body = f"""float *q = out + (size_t)y * {planes.width * channels};
for (int block = 0; block < {planes.blocks}; ++block) {{
  {_image("p", "in", planes)}
  const int real = {channels} - block * {lanes} < {lanes} ? {channels} - block * {lanes} : {lanes};
  for (int x = 0; x < {planes.width}; ++x)
    for (int c = 0; c < real; ++c) q[x * {channels} + block * {lanes} + c] = p[x * {lanes} + c];
}}"""
    return _rows("y", body, planes.height)


def pool(
    kind: str,
    source: Planes,
    target: Planes,
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> str:
    """Maximum or mean over windows; `padding` above and to the left. Pads count for neither."""
    start = "zero() - __builtin_inff()" if kind == "max" else "zero()"
    step = "a = vmax(a, v);" if kind == "max" else "a += v;"
    end = "" if kind == "max" else "a /= (float)((y1 - y0) * (x1 - x0));"
    body = f"""const int y = row / {target.blocks}, block = row % {target.blocks};
{_image("q", "out", target, "float")}
const float *p = in + (size_t)block * {source.plane} + {source.halo * source.row + source.halo * source.lanes};
const int top = y * {stride[0]} - {padding[0]};
const int y0 = top < 0 ? 0 : top, y1 = top + {window[0]} < {source.height} ? top + {window[0]} : {source.height};
for (int x = 0; x < {target.width}; ++x) {{
  const int left = x * {stride[1]} - {padding[1]};
  const int x0 = left < 0 ? 0 : left, x1 = left + {window[1]} < {source.width} ? left + {window[1]} : {source.width};
  for (int lane = 0; lane < {target.lanes}; lane += LANES) {{
    vf a = {start};
    for (int i = y0; i < y1; ++i)
      for (int j = x0; j < x1; ++j) {{
        const vf v = *(const vf *)(p + i * {source.row} + j * {source.lanes} + lane);
        {step}
      }}
    {end}
    *(vf *)(q + x * {target.lanes} + lane) = a;
  }}
}}"""
    return _rows("row", body, target.blocks * target.height)


def mean(source: Planes, target: Planes) -> str:
    """The mean over all pixels of each channel."""
    inside = source.halo * source.row + source.halo * source.lanes
    step = source.lanes if target.lanes != source.lanes else target.plane
    body = f"""for (int lane = 0; lane < {source.lanes}; lane += LANES) {{
  vf a = zero();
  const float *p = in + (size_t)block * {source.plane} + {inside} + lane;
  for (int y = 0; y < {source.height}; ++y)
    for (int x = 0; x < {source.width}; ++x) a += *(const vf *)(p + y * {source.row} + x * {source.lanes});
  *(vf *)(out + (size_t)block * {step} + lane) = a / {float(source.height * source.width)}f;
}}"""
    return _rows("block", body, source.blocks)


def add(first: Planes, second: Planes, target: Planes, activation: str) -> str:
    """The sum of two images."""
    body = f"""const int y = row / {target.blocks}, block = row % {target.blocks};
{_image("q", "out", target, "float")}
{_image("p", "in", first)}
{_image("r", "other", second)}
for (int x = 0; x < {target.width * target.lanes}; x += LANES) {{
  vf a = *(const vf *)(p + x) + *(const vf *)(r + x);
  {" ".join(activated("a", activation))}
  *(vf *)(q + x) = a;
}}"""
    return _rows("row", body, target.blocks * target.height)


def affine(source: Planes, target: Planes, activation: str) -> str:
    """Scale and shift of each channel, which lie in turns at `scale`, vector by vector."""
    body = f"""const int y = row / {target.blocks}, block = row % {target.blocks};
{_image("q", "out", target, "float")}
{_image("p", "in", source)}
for (int x = 0; x < {target.width}; ++x)
  for (int lane = 0; lane < {target.lanes}; lane += LANES) {{
    const float *s = scale + ((size_t)block * {target.lanes} + lane) * 2;
    vf a = *(const vf *)(p + x * {source.lanes} + lane) * *(const vf *)s + *(const vf *)(s + LANES);
    {" ".join(activated("a", activation))}
    *(vf *)(q + x * {target.lanes} + lane) = a;
  }}"""
    return _rows("row", body, target.blocks * target.height)
