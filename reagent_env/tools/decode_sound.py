"""``python decode_sound.py``: any recording on standard input as a plain WAV.

A program of its own for the reason that ``decode_picture.py`` is one. What is written is one channel
of 16,000 samples a second, 16 bits each. Reading stops at the limit of seconds, whatever the header
promises. Exit status 3: the file is to blame, and standard error says why.
"""

from __future__ import annotations

import io
import sys
import wave

RATE = 16_000
FORMATS = ("WAV", "WAVEX", "MP3", "FLAC", "OGG", "AIFF")
REFUSED = 3
_BLOCK = 1 << 16


def decode(content: bytes, most_seconds: float) -> bytes:
    """The recording as WAV.

    Raises:
        ValueError: no recording of :data:`FORMATS`, empty, damaged, or too long.
    """
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as recording:
            if recording.format not in FORMATS:
                raise ValueError(f"it is {recording.format}, none of {', '.join(FORMATS)}")
            rate = recording.samplerate
            blocks, frames = [], 0
            while len(block := recording.read(_BLOCK, dtype="float32", always_2d=True)):
                frames += len(block)
                if frames > most_seconds * rate:
                    raise ValueError(f"it is longer than {most_seconds:g} s")
                blocks.append(block.mean(axis=1))
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"it is no recording of {', '.join(FORMATS)} ({error.error_string})"
        ) from error
    if not blocks or rate < 1:
        raise ValueError("it holds no sound")
    sound = np.concatenate(blocks)
    if rate > RATE:  # an average over what one sample will stand for, against false tones
        width = max(1, round(rate / RATE))
        sound = np.convolve(sound, np.full(width, 1 / width, dtype="float32"), mode="same")
    count = max(1, round(len(sound) * RATE / rate))
    times = np.arange(count) * (rate / RATE)
    plain = np.interp(times, np.arange(len(sound)), sound)
    samples = (np.clip(np.nan_to_num(plain), -1, 1) * 32767).astype("<i2")
    written = io.BytesIO()
    with wave.open(written, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.tobytes())
    return written.getvalue()


def main() -> int:
    """Decode standard input; the limit in seconds is the argument."""
    try:
        sound = decode(sys.stdin.buffer.read(), float(sys.argv[1]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(sound)
    return 0


if __name__ == "__main__":
    sys.exit(main())
