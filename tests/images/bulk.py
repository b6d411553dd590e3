"""Large images, made byte for byte the same every time: what they hold compresses as programs do."""

import random

import debian
from oci import OCI, Layer

MIB = 1 << 20
POOL = 32 * MIB
BLOCK = 4096
# Uncompressed MiB and files of each layer, as of an application on its language on a distribution.
USUAL = [(120, 3200), (235, 5600), (180, 1900), (110, 900), (18, 100)]
# One layer of files that hardly compress, as data sets do.
HUGE = [(128, 40)] * 8


def pool(generator, random_share):
    """Blocks of random bytes among blocks of words; files are cut out of it."""
    words = [generator.randbytes(generator.randrange(3, 12)) for _ in range(400)]
    data = bytearray()
    while len(data) < POOL:
        if generator.random() < random_share:
            data += generator.randbytes(BLOCK)
        else:
            data += b"".join(generator.choices(words, k=BLOCK // 7))
    return memoryview(bytes(data[:POOL]))


def sizes(generator, total, count):
    """Sizes of files: many small ones, few large ones, together the total."""
    weights = [2 ** generator.uniform(8, 19) for _ in range(count)]
    scale = total / sum(weights)
    return [max(1, min(POOL, int(weight * scale))) for weight in weights]


def layer(seed, raw_mib, files, random_share, level):
    """A finished layer: (compressed bytes, digest of the uncompressed tar)."""
    generator = random.Random(seed)
    source = pool(generator, random_share)
    made = Layer()
    for number, size in enumerate(sizes(generator, raw_mib * MIB, files)):
        start = generator.randrange(POOL - size + 1)
        made.file(f"srv/{seed}/{number % 97:02}/{number:05}", bytes(source[start:start + size]))
    return made.finish(level)


def bench(store, _cache):
    """bench-300m: 300 MB in 5 gzip layers, some 660 MB unpacked; bench-1g: 1 GB that is only data."""
    for name, layers, random_share, level in (("300m", USUAL, 0.15, 6), ("1g", HUGE, 1.0, 1)):
        finished = [layer(f"{name}-{at}", raw, files, random_share, level)
                    for at, (raw, files) in enumerate(layers)]
        store.tag(f"joey/bench-{name}:latest", store.manifest(OCI, debian.ARCH, {}, finished))
