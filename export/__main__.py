"""python -m export RUN -o model.onnx"""

import argparse
import base64
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # set before TensorFlow is imported
os.environ["KERAS_BACKEND"] = "tensorflow"  # tf2onnx traces TensorFlow; the weights fit any backend

try:
    import onnx

    from export.card import ATTRIBUTION, make_card
    from export.causal import convert_step, convert_window
    from export.convert import convert
    from export.describe import describe
    from export.parity import check_parity
    from kwsd.core.card import METADATA_KEY, STEP_KEY
    from kwsd.core.model import load_model
    from kwsd.errors import ExportError, KwsdError
    from kwsd.files import whole
    from train.architectures import ARCHITECTURES
    from train.measure.subject import KerasModel
except ModuleNotFoundError as error:
    raise SystemExit(f"export: needs the package {error.name}; use the environment of `make test`") from None


def export(run: Path, output: Path, data: Path | None = None, attribution: str = ATTRIBUTION, note: str = "") -> float:
    """Convert a run, add its card, verify the result, and only then write the file.

    Args:
        run: a finished training.
        output: the ONNX file.
        data: folder of WAV files for the parity check; None for synthetic audio.
        attribution: of all recordings that the model was trained on.
        note: further text for users of the model, for the card.

    Returns:
        the largest difference between Keras and ONNX Runtime.

    Raises:
        TrainingError, ModelError, ExportError: the export failed; nothing was written.
    """
    if not output.name or output.is_dir():
        raise ExportError(f"{output}: is not a file; name a file to write")
    subject = KerasModel(run)
    model = subject.keras
    card = make_card(run, subject, attribution, note)
    properties = {METADATA_KEY: card.to_json()}
    if ARCHITECTURES[card.name].is_causal:
        graph = convert_window(model)
        properties[STEP_KEY] = base64.b64encode(convert_step(model).SerializeToString()).decode()
    else:
        graph = convert(model)
    onnx.helper.set_model_props(graph, properties)
    try:
        with whole(output) as part:
            onnx.save(graph, part)
            return check_parity(model, load_model(part, "cpu"), data)
    except OSError as error:
        raise ExportError(f"{output}: cannot be written ({error.strerror})") from None


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m export", description="Export a trained run as one ONNX file.")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, metavar="DIR", help="verify on WAV files below DIR (synthetic audio)")
    parser.add_argument("--attribution", default=ATTRIBUTION, help="credit for the recordings (%(default)s)")
    parser.add_argument("--note", default="", help="further text for users, for the card")
    parser.add_argument("--describe", type=Path, metavar="FILE", help="also write the model card as Markdown")
    args = parser.parse_args()
    try:
        worst = export(args.run, args.output, args.data, args.attribution, args.note)
        if args.describe:
            describe(load_model(args.output, "cpu"), args.run, args.describe)
    except KwsdError as error:
        print(f"export: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # while writing the card's Markdown
        print(f"export: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{args.output}: Keras and ONNX Runtime agree within {worst:.1e}, golden check passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
