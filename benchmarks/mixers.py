"""The speed of every sequence mixer: a training step, or with `--step` a token.

    python -m benchmarks.mixers
    python -m benchmarks.mixers --step

A training step is the forward pass, the mean squared error, the backward pass and Adam: of ours
through Keras's own `train_on_batch` with its defaults (compiled by jax and tensorflow, eager under
torch), of a peer through the same loop in plain PyTorch. Every number comes from a process of its
own, with the same number of threads, and is the median of the repeats after two steps to warm up.
Before it is timed, a mixer must give what the first backend gives with the same weights, and a peer
what our layer gives with its weights, where we convert them.

A token is one call of `step`, compiled by `ember_keras.backend.compile`, and each is waited for. A
state that keeps its past has room (`max_length`) for as many tokens as it sees here. The state has
seen that many tokens in one chunk; of a long convolution, which puts work off, it has seen them one
by one, and the time is the mean over the last half of them.

What fails, or takes longer than `--limit` seconds, has a row that says so; the exit status is 1.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import common

BACKENDS = ("jax", "torch", "tensorflow", "mlx")
SMALLER = {"ltc": {"time": 128, "width": 64}}
"""Mixers whose training step is measured at most at this size, beside their peers of that size:
ncps keeps several arrays (B, D, D) for each of 6 T solver steps, 80 GB at T=1024 and D=256."""


def main():
    common.end_workers_with_us()
    options = _options()
    results = []
    packages = common.packages_of(options.backends)
    peers = _peers(options)
    if peers:
        used = {name.split("-")[0]: None for name in peers}
        packages += [name for name in ("torch", *used) if name not in packages]
    sizes = f"B={options.batch}, D={options.width}, float32, {options.threads} threads"
    if options.step:
        heading = f"A token in `step`: {sizes}, medians of {options.repeats} x {options.tokens}"
    else:
        heading = f"A training step: {sizes}, T={options.time}, medians of {options.repeats}"
    heading = f"{common.versions(*packages)}\n\n{heading} (least to most)"
    print(heading, flush=True)

    measure = _steps if options.step else _trains
    report = _step_report if options.step else _train_report
    for mixer in options.mixers:
        results += measure(mixer, options, [name for name in peers if _of(name) == mixer])
        text = f"{heading}\n\n{report(results, options)}\n"
        if options.markdown:  # After each, so that a run that is broken off has left what it found.
            options.markdown.write_text(text)
        if options.json:
            options.json.write_text(json.dumps({"heading": heading, "results": results}, indent=1))
    print(f"\n{report(results, options)}")
    return 1 if any("error" in result for result in results) else 0


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixers", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--step", action="store_true", help="time a token in place of training")
    parser.add_argument("--mixers", help="names, with commas between; all that are registered")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--batch", type=int, help="8, or 1 with --step")
    parser.add_argument("--time", type=int, default=1024)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, help="of which the median is; 5, or 15 with --step")
    parser.add_argument("--seen", default="256,16384", help="of --step: the tokens seen before")
    parser.add_argument("--tokens", type=int, default=16, help="of --step: tokens in a repeat")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--limit", type=float, default=900, help="seconds for one number")
    parser.add_argument("--markdown", type=Path, help="a file to write the tables to as well")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to as well")
    options = parser.parse_args()
    if options.batch is None:
        options.batch = 1 if options.step else 8
    if options.repeats is None:
        options.repeats = 15 if options.step else 5
    options.backends = common.names(options.backends)
    options.seen = sorted({int(number) for number in common.names(options.seen)})
    least = ("batch", "time", "width", "repeats", "tokens", "threads")
    for name in least:
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; expected at least 1")
    if not options.seen or options.seen[0] < 2:
        parser.error("--seen expects numbers of at least 2, such as 256,16384")
    known = (*BACKENDS, "numpy") if options.step else BACKENDS
    _check(parser, "--backends", options.backends, known)
    registered = _registered(options)
    if registered is None:
        parser.error(f"none of the backends {', '.join(options.backends)} starts")
    options.mixers = common.names(options.mixers) if options.mixers else registered
    _check(parser, "--mixers", options.mixers, registered)
    return options


def _check(parser, option, given, known):
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        parser.error(f"{option} has {', '.join(unknown)}; expected some of {', '.join(known)}")


def _registered(options):
    """The names of the mixers, from the first backend that starts."""
    for backend in options.backends:
        try:
            return registered_names(backend, options.threads)
        except RuntimeError as error:
            print(f"  {backend}: {error}", file=sys.stderr)
    return None


def registered_names(backend, threads):
    """The names of the sequence mixers, as a worker under this backend sees them."""
    found = common.run("benchmarks.mixers:registered", {}, backend, threads, 120)
    if "error" in found:
        raise RuntimeError(found["error"])
    return found["names"]


def registered(job):
    """The names of the sequence mixers, in a worker: the parent imports no backend."""
    import ember_keras as ek

    return {"names": ek.registry.sequence_mixers.names()}


def _peers(options):
    from benchmarks.peers import PEERS

    if options.step or not options.peers:
        return []
    return [name for name, peer in PEERS.items() if peer.mixer in options.mixers]


def _of(name):
    from benchmarks.peers import PEERS

    return PEERS[name].mixer


def _size(mixer, options):
    smaller = SMALLER.get(mixer, {})
    return {
        "batch": options.batch,
        "time": min(options.time, smaller.get("time", options.time)),
        "width": min(options.width, smaller.get("width", options.width)),
    }


def _trains(mixer, options, peers):
    size = _size(mixer, options)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for backend in options.backends:
            job = {"mixer": mixer, **size, "repeats": options.repeats}
            work = {**job, "folder": folder}
            result = _run("benchmarks.mixer_work:train", work, backend, options)
            found.append(_said({**job, "backend": backend, **result}))
    for peer in peers:
        job = {"mixer": mixer, "peer": peer, **size, "repeats": options.repeats}
        result = _run("benchmarks.peers:train", job, "torch", options)
        found.append(_said({**job, "backend": "torch", **result}))
    return found


def _steps(mixer, options, peers):
    found = []
    for backend in options.backends:
        names = ("batch", "width", "repeats", "tokens", "seen")
        job = {"mixer": mixer, **{name: getattr(options, name) for name in names}}
        result = _run("benchmarks.mixer_work:step", job, backend, options)
        found.append(_said({**job, "backend": backend, **result}))
    return found


def _run(target, job, backend, options):
    return common.run(target, job, backend, options.threads, options.limit)


def _said(result):
    """The result, after a line on it: a run takes long."""
    name = result.get("peer", result["backend"])
    if "error" in result:
        said = result["error"]
    elif "at" in result:
        said = ", ".join(f"{_ms(each)} ms at {n}" for n, each in result["at"].items())
    else:
        said = f"{_ms(result)} ms; first step {result['first']:.1f} s"
    print(f"  {result['mixer']}, {name}: {said}", file=sys.stderr, flush=True)
    return result


def _ms(times):
    digits = 3 if times["median"] < 0.01 else 1
    low, middle, high = (f"{1000 * times[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} ({low} to {high})"


def _title(result, options):
    small = [
        f"{letter}={result[key]}"
        for letter, key in (("T", "time"), ("D", "width"))
        if result[key] != getattr(options, key)
    ]
    return f"{result['mixer']} ({', '.join(small)})" if small else result["mixer"]


def _train_report(results, options):
    ours = {(r["mixer"], r["backend"]): r for r in results if "peer" not in r}
    mixers = list(dict.fromkeys(mixer for mixer, _ in ours))
    rows = []
    for mixer in mixers:
        each = [ours[mixer, backend] for backend in options.backends]
        rows.append([_title(each[0], options), *map(_cell, each)])
    parts = [common.table(["mixer", *(f"{name}, ms" for name in options.backends)], rows)]

    rows = []
    for result in (r for r in results if "peer" in r):
        mixer = result["mixer"]
        speeds = {b: r["median"] for (m, b), r in ours.items() if m == mixer and "median" in r}
        row = [_title(result, options), result["peer"], _cell(result)]
        if "error" in result or not speeds:
            rows.append([*row, "", "", result.get("checked", "")])
            continue
        best = min(speeds, key=speeds.get)
        on_torch = f"{result['median'] / speeds['torch']:.2f}" if "torch" in speeds else ""
        ratio = f"{result['median'] / speeds[best]:.2f} ({best})"
        rows.append([*row, ratio, on_torch, result["checked"]])
    if rows:
        columns = ["mixer", "peer", "ms", "peer / our fastest", "peer / ours on torch", "output"]
        parts += ["", common.table(columns, rows), "", *_notes(results)]
    return "\n".join([*parts, *_failures(results)])


def _notes(results):
    from benchmarks.peers import PEERS

    used = dict.fromkeys(result["peer"] for result in results if "peer" in result)
    return [f"- {name}: {PEERS[name].package}, {PEERS[name].note}." for name in used]


def _step_report(results, options):
    columns = ["mixer", "backend", *(f"at {n}, ms" for n in options.seen), "ratio", "cost"]
    rows = []
    for result in results:
        row = [result["mixer"], result["backend"]]
        if "error" in result:
            rows.append([*row, *("failed" for _ in options.seen), "", ""])
            continue
        at = [result["at"][str(number)] for number in options.seen]
        ratio = f"{at[-1]['median'] / at[0]['median']:.2f}"
        kind = "mean of the last half" if result["amortised"] else "median"
        rows.append([*row, *map(_ms, at), ratio, kind])
    return "\n".join([common.table(columns, rows), *_failures(results)])


def _cell(result):
    return "failed" if "error" in result else _ms(result)


def _failures(results):
    lines = [
        f"- failed: {r['mixer']}, {r.get('peer', r['backend'])}: {r['error']}"
        for r in results
        if "error" in r
    ]
    return ["", *lines] if lines else []


if __name__ == "__main__":
    sys.exit(main())
