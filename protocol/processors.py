"""Classes of processors: what a measured time can be compared with. Two processors of one class run the same kernels of the
inference engines; a time from another class says little."""

from __future__ import annotations

FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX-INT8",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
}
"""Flag in /proc/cpuinfo -> how it is known; what the engines' kernels look for."""
_STRONGEST = {
    "AMX-INT8": "AMX",
    "AVX512-VNNI": "VNNI",
    "AVX-VNNI": "VNNI",
    "AVX512": "AVX512",
    "AVX2": "AVX2",
    "I8MM": "I8MM",
    "dot product": "dot product",
    "NEON": "NEON",
}
"""What decides the kernels for products of 8 bits, the best first -> the class's word."""
_ARCHITECTURES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64"}


def processor(cpuinfo: str) -> tuple[str, list[str]]:
    """(its name, empty if it says none, what it has of FEATURES), from the text of /proc/cpuinfo."""
    told: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        told.setdefault(key.strip().lower(), value.strip())
    flags = f"{told.get('flags', '')} {told.get('features', '')}".split()
    name = told.get("model name") or told.get("hardware") or ""
    return name, list(dict.fromkeys(FEATURES[flag] for flag in FEATURES if flag in flags))


def processor_class(cpuinfo: str, machine: str, threads: int = 1) -> str:
    """As passports say it: "x86-64 VNNI, 1 thread". machine: what `uname -m` says."""
    _, features = processor(cpuinfo)
    best = next((word for feature, word in _STRONGEST.items() if feature in features), "")
    architecture = _ARCHITECTURES.get(machine.lower(), machine)
    return f"{architecture} {best}".strip() + f", {threads} thread{'s' if threads != 1 else ''}"
