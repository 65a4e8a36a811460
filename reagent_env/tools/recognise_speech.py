"""``python recognise_speech.py``: the English words in a plain WAV, by pocketsphinx.

Reads what ``decode_sound.py`` writes; its wheel carries the model. Loading it takes about a second,
and so does a few seconds of speech, so it is a program that can be stopped.
"""

from __future__ import annotations

import io
import sys
import wave


def recognise(sound: bytes) -> str:
    """The words, in lower case and without punctuation; empty where none are heard."""
    import pocketsphinx

    with wave.open(io.BytesIO(sound)) as recording:
        rate, samples = recording.getframerate(), recording.readframes(recording.getnframes())
    decoder = pocketsphinx.Decoder(samprate=float(rate), loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(samples, no_search=False, full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return "" if heard is None else str(heard.hypstr)


def main() -> int:
    """Recognise standard input."""
    print(recognise(sys.stdin.buffer.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
