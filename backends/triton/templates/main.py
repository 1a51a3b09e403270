"""Run the model on arrays of a file: `python FOLDER --input in.npz --output out.npz` (or `python -m FOLDER`).

Types that NumPy lacks stand in files as their bits: bfloat16 as uint16, float8 as uint8. The elements of a sequence x
are the arrays x.0, x.1 and so on, x.length of them; a map is x.keys and x.values.
"""

import argparse
import importlib
import importlib.util
import os
import sys
import zipfile
from pathlib import Path

# What is raised for a damaged folder, and for inputs that do not fit.
LOADING = (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile)
MISSING = object()  # stands for an array that the file does not have


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
    parser.add_argument("--force", action="store_true", help="write to the input file, too")
    options = parser.parse_args()
    if not options.force and os.path.exists(options.output) and os.path.samefile(options.input, options.output):
        print(f"error: {''.join(map(printable, options.output))} is the input; --force replaces it", file=sys.stderr)
        return 2
    import numpy

    try:
        model_package = package()
        model = model_package.load(options.device)
    except ModuleNotFoundError as error:
        package_name = (error.name or "").partition(".")[0]
        if package_name not in ("torch", "triton"):
            raise
        print(f"error: this compiled model needs {package_name}, which is not installed: pip install torch triton",
              file=sys.stderr)  # fmt: skip
        return 3
    except LOADING as error:
        return failed(error)
    try:
        with numpy.load(options.input) as arrays:
            inputs = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # of a damaged file NumPy raises whatever the parts that read it raise
        print(f"error: {options.input} cannot be read: {type(error).__name__}", file=sys.stderr)
        return 3
    try:
        for entry in model.signature["inputs"]:
            if entry["dtype"] is None:
                inputs = gathered(inputs, entry["name"], entry["type"])
        arrays = {}
        for name, result in model.run(inputs).items():
            flatten(name, result, arrays, model_package)
        save(options.output, arrays, model_package)
    except LOADING as error:
        return failed(error)
    return 0


def failed(error: Exception) -> int:
    """Say what was wrong with the folder or the inputs; returns the exit status."""
    print("error: " + "".join(map(printable, str(error))), file=sys.stderr)
    return 3


def printable(character):
    """A character as a terminal may see it: names and messages come from the model."""
    shown = character.isprintable() or character == "\n"
    return character if shown else character.encode("unicode_escape").decode()


def gathered(arrays, name, kind):
    """The inputs with that of this name made of the arrays that belong to it: of a sequence x they are x.0, x.1 and so
    on, of a map x.keys and x.values."""
    used = set()
    value = taken(arrays, name, kind, used)
    rest = {key: array for key, array in arrays.items() if key not in used}
    return rest if value is MISSING else {**rest, name: value}


def taken(arrays, name, kind, used):
    word, _, inside = kind.partition("(")
    if not inside:
        used.add(name)
        array = arrays.get(name, MISSING)
        return array.astype(object) if kind == "string" and array is not MISSING else array
    element = inside[:-1]
    if word == "optional":
        content = taken(arrays, name, element, used)
        return None if content is MISSING else content
    if word == "map":
        used |= {f"{name}.keys", f"{name}.values"}
        if f"{name}.keys" not in arrays or f"{name}.values" not in arrays:
            return MISSING
        return dict(zip(arrays[f"{name}.keys"].tolist(), arrays[f"{name}.values"].tolist(), strict=True))
    used.add(f"{name}.length")
    length = int(arrays[f"{name}.length"]) if f"{name}.length" in arrays else None
    elements = []
    while length is None or len(elements) < length:
        content = taken(arrays, f"{name}.{len(elements)}", element, used)
        if content is MISSING or (length is None and content is None):
            break
        elements.append(content)
    return elements if elements or length is not None else MISSING


def flatten(name, result, arrays, model_package):
    """Add a result to the arrays, in the same way."""
    if isinstance(result, list):
        add(f"{name}.length", numpy_array(len(result)), arrays)
        for index, element in enumerate(result):
            flatten(f"{name}.{index}", element, arrays, model_package)
    elif isinstance(result, dict):
        add(f"{name}.keys", numpy_array(list(result)), arrays)
        add(f"{name}.values", numpy_array(list(result.values())), arrays)
    elif result is not None:
        add(name, to_numpy(result, model_package) if hasattr(result, "detach") else numpy_array(result), arrays)


def add(name, array, arrays):
    if name in arrays:
        raise ValueError(f"two arrays would be called {name}")
    if array.dtype == object and any(text.endswith("\0") for text in array.flat):
        raise ValueError(f"an .npz file cannot hold a text that ends with NUL, as one of {name} does")
    arrays[name] = array.astype(str) if array.dtype == object else array


def numpy_array(content):
    import numpy

    return numpy.asarray(content)


def to_numpy(tensor, model_package):
    """A result as an array that a file can hold."""
    tensor = tensor.detach().cpu()
    carrier = model_package.runtime.CARRIERS.get(tensor.dtype)
    return (tensor if carrier is None else tensor.contiguous().view(carrier)).numpy()


def save(path, arrays, model_package):
    """Write an .npz file, whole or not at all. (numpy.savez takes no array that is called `file`.)"""
    import numpy

    partial = importlib.import_module(f"{model_package.__name__}.partial")
    with partial.replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                numpy.lib.format.write_array(member, array, allow_pickle=False)


if __name__ == "__main__":
    sys.exit(main())
