"""Run the model on arrays of a file: `python FOLDER --input in.npz --output out.npz` (or `python -m FOLDER`)."""

import argparse
import importlib.util
import sys
from pathlib import Path


def package():
    """This folder as a package, also where it was started as a plain folder whose name is no identifier."""
    if __package__:
        return importlib.import_module(__package__)
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "compiled_model", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["compiled_model"] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(prog="python " + (f"-m {__package__}" if __package__ else Path(sys.argv[0]).name))
    parser.add_argument("--input", required=True, help="an .npz file with an array for each input, by name")
    parser.add_argument("--output", required=True, help="the .npz file to write: an array for each output, by name")
    parser.add_argument("--device", help="a PyTorch device; a GPU where there is one")
    options = parser.parse_args()
    import numpy

    model_package = package()
    try:
        with numpy.load(options.input) as arrays:
            inputs = {name: arrays[name] for name in arrays.files}
        results = model_package.load(options.device).run(inputs)
    except (OSError, model_package.ArtefactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    numpy.savez(options.output, **{name: to_numpy(result) for name, result in results.items()})
    return 0


def to_numpy(tensor):
    """NumPy has no bfloat16: it is written as float32, which holds every bfloat16."""
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


if __name__ == "__main__":
    sys.exit(main())
