"""``python recognise_speech.py``: the English words in a plain WAV, by pocketsphinx.

Reads what ``decode_sound.py`` writes; its wheel carries the model. Loading it takes about a second,
and so does a few seconds of speech, so it is a program that can be stopped.
"""

from __future__ import annotations

import io
import sys
import wave


def recognise(sound: bytes) -> str:
    """The words, in lower case and without punctuation, a stretch of speech a line."""
    import pocketsphinx

    with wave.open(io.BytesIO(sound)) as recording:
        rate, samples = recording.getframerate(), recording.readframes(recording.getnframes())
    decoder = pocketsphinx.Decoder(samprate=float(rate), loglevel="FATAL")
    # Stretches of speech alone: in silence the decoder hears a word all the same.
    segmenter = pocketsphinx.Segmenter(sample_rate=rate)
    pause = bytes(2 * rate)  # a second around it, or speech up to the edge is missed
    heard = []
    for speech in segmenter.segment(io.BytesIO(pause + samples + pause)):
        decoder.start_utt()
        decoder.process_raw(speech.pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        if found is not None:
            heard.append(str(found.hypstr))
    return "\n".join(line for line in heard if line)


def main() -> int:
    """Recognise standard input."""
    print(recognise(sys.stdin.buffer.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
