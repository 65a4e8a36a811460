"""``python decode_picture.py``: any picture on standard input as a plain PNG.

A program of its own, so that a decoder that a file breaks or feeds for ever takes nothing with it:
``image2text.py`` runs it under bounds. What is written is RGB or grey, turned as the picture says, of
at most so many pixels on its longer side, without metadata. A picture whose header promises more
pixels than the limit is refused before any is decoded. Exit status 3: the file is to blame, and
standard error says why.
"""

from __future__ import annotations

import io
import sys
import warnings

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
REFUSED = 3


def decode(content: bytes, most_pixels: int, longest_side: int) -> bytes:
    """The picture as PNG.

    Raises:
        ValueError: no picture of :data:`FORMATS`, too many pixels, damaged, or cut short.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = most_pixels
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > most_pixels:
                raise ValueError(
                    f"it has {width} x {height} pixels; at most {most_pixels} are read"
                )
            picture.load()
            plain = ImageOps.exif_transpose(picture)
            flat = Image.new("RGB", plain.size, "white")
            layered = plain.convert("RGBA")
            flat.paste(layered, mask=layered.getchannel("A"))
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"it has more than {most_pixels} pixels") from None
    except ValueError:
        raise
    except Exception as error:  # decoders have errors of every kind
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
    flat.thumbnail((longest_side, longest_side))
    written = io.BytesIO()
    flat.save(written, "PNG")
    return written.getvalue()


def main() -> int:
    """Decode standard input; the limits are the two arguments."""
    most_pixels, longest_side = map(int, sys.argv[1:3])
    try:
        png = decode(sys.stdin.buffer.read(), most_pixels, longest_side)
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
