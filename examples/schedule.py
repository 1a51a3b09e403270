"""States the blocks of kernels, and prints what that costs (docs/research.md)."""

from irc.scheduling import schedule


@schedule
def narrow(kernel):
    """Loop over reduced rows in blocks of 256 elements, with 8 warps."""
    if kernel.kind != "reduction":
        return None  # rules choose
    chosen, stated = kernel.bytes(), kernel.bytes(n=256, warps=8)
    print(f"@{kernel.name}: {stated.loaded_bytes:,} bytes loaded, {chosen.loaded_bytes:,} with {kernel.chosen}")
    return {"n": 256, "warps": 8}
