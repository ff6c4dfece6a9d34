"""Whether DATA can be used, and is decoded already: looked at without decoding anything."""

from contextlib import suppress
from inspect import signature

from foundation import Finding, RequestError, cache_root, count
from trainables.cache import ImageCache, check_room, folder_of, open_cache, prepare
from trainables.images import list_images, open_source

OPTIONS = ("image_size", "resize", "val_fraction", "test_fraction", "duplicates")
LEAST_BYTES = 32 * 32 * 3 * 2  # of an image, twice: they are decoded into a scratch file first


def cache_of(data: str) -> ImageCache | None:
    """Return the cache of `data` with the usual options, None if it has not been decoded; raises as `prepare`."""
    parameters = signature(prepare).parameters
    folder = folder_of(open_source(data).key, *(parameters[name].default for name in OPTIONS))
    with suppress(RequestError):
        return open_cache(folder)
    return None


def data_finding(data: str) -> Finding:
    """Return whether `data` can be used and its cache be written; `RequestError` with all that is wrong with it."""
    if cache := cache_of(data):
        n_images = sum(sum(of_class.values()) for of_class in cache.counts.values())
        said = f"{count(n_images, 'image')} of {len(cache.classes)} classes, decoded in {cache.folder}"
        return Finding("data", "ok", said)
    listing = list_images(data)
    check_room(cache_root(), len(listing.items) * LEAST_BYTES)
    refused = f"; {count(len(listing.refused), 'file')} refused" if listing.refused else ""
    said = f"{count(len(listing.items), 'image')} of {len(listing.classes)} classes, not decoded yet{refused}"
    return Finding("data", "ok", said)
