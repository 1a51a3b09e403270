"""Run the model on arrays of a file: `python FOLDER --input in.npz --output out.npz` (or `python -m FOLDER`).

Types that NumPy lacks stand in files as their bits: bfloat16 as uint16, float8 as uint8. The elements of a sequence x
are the arrays x.0, x.1 and so on.
"""

import argparse
import importlib.util
import itertools
import os
import sys
import zipfile
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
        model = model_package.load(options.device)
        for entry in model.signature["inputs"]:
            if entry["dtype"] is None:  # a sequence x, as x.0, x.1 and so on
                numbered = (f"{entry['name']}.{number}" for number in itertools.count())
                names = itertools.takewhile(inputs.__contains__, numbered)
                inputs[entry["name"]] = [inputs.pop(name) for name in list(names)]
        arrays = {}
        for name, result in model.run(inputs).items():
            flatten(name, result, arrays, model_package)
        save(options.output, arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


def flatten(name, result, arrays, model_package):
    """Add a result to the arrays: the elements of a sequence, keys and values of a map by names of their own."""
    if isinstance(result, list):
        for index, element in enumerate(result):
            flatten(f"{name}.{index}", element, arrays, model_package)
    elif isinstance(result, dict):
        flatten(f"{name}.keys", numpy_array(list(result)), arrays, model_package)
        flatten(f"{name}.values", numpy_array(list(result.values())), arrays, model_package)
    elif result is not None:
        arrays[name] = to_numpy(result, model_package) if hasattr(result, "detach") else numpy_array(result)


def numpy_array(content):
    import numpy

    return numpy.asarray(content)


def to_numpy(tensor, model_package):
    """A result as an array that a file can hold."""
    tensor = tensor.detach().cpu()
    carrier = model_package.runtime.CARRIERS.get(tensor.dtype)
    return (tensor if carrier is None else tensor.contiguous().view(carrier)).numpy()


def save(path, arrays):
    """Write an .npz file, whole or not at all. (numpy.savez takes no array that is called `file`.)"""
    import numpy

    beside = f"{path}.{os.getpid()}.partial"
    try:
        with zipfile.ZipFile(beside, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    numpy.lib.format.write_array(member, array, allow_pickle=False)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


if __name__ == "__main__":
    sys.exit(main())
