"""What any kind of preprocessing means: in NumPy, and for text by the tokenizers library."""

from collections.abc import Callable, Mapping

from headrace.preprocess.audio.reference import prepare as prepare_audio
from headrace.preprocess.audio.spec import AudioPreprocessing
from headrace.preprocess.image.reference import prepare as prepare_images
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.spec import Preprocessing
from headrace.preprocess.table.reference import prepare as prepare_table
from headrace.preprocess.table.spec import TablePreprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.preprocess.text.tokenize import open_tokenizer
from headrace.tensors import Array

Prepare = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""What clients send in, what the model takes out; all with the batch axis first."""


def open_reference(spec: Preprocessing, read: Callable[[str], bytes]) -> Prepare:
    """What a spec means.

    Args:
        read: The content of a file that the spec names.

    Raises:
        MissingError: An extra is not installed.
        BundleError: A file is not what the spec says.
    """
    match spec:
        case ImagePreprocessing():
            return lambda raw: {spec.output: prepare_images(spec, raw[spec.input].tolist())}
        case AudioPreprocessing():
            return lambda raw: {spec.output: prepare_audio(spec, raw[spec.input].tolist())}
        case TablePreprocessing():
            return lambda raw: {spec.output: prepare_table(spec, raw)}
        case TextPreprocessing():
            tokenizer = open_tokenizer(spec, read(spec.tokenizer))
            return lambda raw: tokenizer.prepare(raw[spec.input].tolist())
