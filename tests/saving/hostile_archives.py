"""Hostile archives, and other formats under the names of ours (rules 4, 7, 8 and 9)."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import h5py
import numpy as np
from saving.cases import CONFIG, METADATA, WEIGHTS, layer, members, with_config, write_zip
from saving.hostile import Touch, code_of, hostile

# JSON: rule 7.


def with_text(good, path, text, member=CONFIG):
    write_zip(path, {**members(good.keras), member: text})


@hostile("rule 7", "levels")
def deep_json(good, path, canary):
    with_text(good, path, b"[" * 100_000 + b"]" * 100_000)


@hostile("rule 7", "levels|not valid JSON")
def deep_json_behind_a_quote(good, path, canary):
    with_text(good, path, b'["\\\\",' + b"[" * 100_000 + b"]" * 100_001)


@hostile("rule 7", "levels")
def deep_objects(good, path, canary):
    with_text(good, path, b'{"config":' * 5000 + b"1" + b"}" * 5000)


@hostile("rule 2", "twice in one object")
def key_twice(good, path, canary):
    with_text(good, path, b'{"class_name": "Sequential", "class_name": "Lambda", "config": {}}')


@hostile("rule 9", "not valid JSON")
def not_json(good, path, canary):
    with_text(good, path, b"\x80\x04cos\nsystem\n")


@hostile("rule 9", "not valid JSON")
def cut_json(good, path, canary):
    with_text(good, path, members(good.keras)[CONFIG][:-40])


@hostile("rule 9", "expected the configuration of a model")
def list_for_a_model(good, path, canary):
    with_text(good, path, b"[1, 2]")


@hostile("rule 9", "expected a Keras model")
def layer_for_a_model(good, path, canary):
    with_config(good, path, lambda _: layer("Dense", {"units": 2}))


@hostile("rule 9", "version '2.15.0'")
def version_two(good, path, canary):
    with_text(good, path, b'{"keras_version": "2.15.0"}', METADATA)


# The archive: rules 7, 8 and 9.


def with_member(good, path, name, data=b"evil", compression=zipfile.ZIP_STORED):
    write_zip(path, [*members(good.keras).items(), (name, data)], compression)


@hostile("GHSA-hqp4-2352-xf5r", "expected only")
def traversal(good, path, canary):
    with_member(good, path, f"../{canary.name}")


@hostile("CVE-2026-12479", "expected only")
def traversal_under_assets(good, path, canary):
    with_member(good, path, f"assets/../../{canary.name}")


@hostile("rule 8", "expected only")
def absolute_member(good, path, canary):
    with_member(good, path, str(canary))


@hostile("rule 8", "expected only")
def backslashes(good, path, canary):
    with_member(good, path, "assets\\..\\..\\evil.txt")


@hostile("rule 8", "expected only")
def drive_letter(good, path, canary):
    with_member(good, path, "C:evil.txt")


@hostile("rule 9", "expected only")
def unknown_member(good, path, canary):
    with_member(good, path, "sitecustomize.py")


@hostile("rule 9", "no layer in it keeps such files")
def unneeded_asset(good, path, canary):
    with_member(good, path, "assets/layers/first/vocabulary.txt")


@hostile("keras#23015, PR #22896", "link or a folder")
def link_member(good, path, canary):
    info = zipfile.ZipInfo("assets/link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with_member(good, path, info, b"/etc/passwd")


@hostile("rule 8", "stands twice")
def member_twice(good, path, canary):
    contents = [*members(good.keras).items(), ("Config.json", b"{}")]
    write_zip(path, contents)


@hostile("rule 8", "stands twice|expected only")
def member_with_a_nul(good, path, canary):
    with_member(good, path, "assets/evil1.txt")
    path.write_bytes(path.read_bytes().replace(b"evil1.txt", b"evil\0.txt"))


@hostile("keras#23010", "decompression bomb")
def zip_bomb(good, path, canary):
    contents = {**members(good.keras), WEIGHTS: bytes(200 << 20)}
    write_zip(path, contents, zipfile.ZIP_DEFLATED)


@hostile("keras#23010", "decompression bomb|at most")
def json_bomb(good, path, canary):
    contents = {**members(good.keras), CONFIG: b" " * (60 << 20)}
    write_zip(path, contents, zipfile.ZIP_DEFLATED)


@hostile("rule 7", "not as long as it declares|cannot be read|two sizes")
def lying_sizes(good, path, canary):
    contents = members(good.keras)
    write_zip(path, contents)
    size = struct.pack("<I", len(contents[CONFIG]))
    path.write_bytes(path.read_bytes().replace(size * 2, struct.pack("<I", 20) * 2))


@hostile("rule 7", "overlaps")
def overlapping_members(good, path, canary):
    contents = {**members(good.keras), "assets/a": b"x" * 50, "assets/b": b"x" * 50}
    write_zip(path, contents)
    data = bytearray(path.read_bytes())
    first = data.rfind(b"PK\x01\x02", 0, data.rfind(b"assets/b"))
    offset = struct.unpack_from("<I", data, data.rfind(b"PK\x01\x02", 0, first) + 42)
    struct.pack_into("<I", data, first + 42, *offset)
    path.write_bytes(data)


@hostile("rule 9", "encrypted or packed")
def unusual_packing(good, path, canary):
    write_zip(path, members(good.keras), zipfile.ZIP_BZIP2)


@hostile("rule 7", "table of contents|members")
def endless_members(good, path, canary):
    many = [(f"assets/{i}", b"") for i in range(3000)]
    write_zip(path, [*members(good.keras).items(), *many])


@hostile("rule 9", "begins with")
def archive_behind_a_script(good, path, canary):
    path.write_bytes(b"#!/bin/sh\ntouch canary\n" + good.keras.read_bytes())


@hostile("rule 9", "member `model.weights.h5` is missing|expected only")
def npz_weights(good, path, canary):
    contents = members(good.keras)
    del contents[WEIGHTS]
    data = io.BytesIO()
    np.savez(data, x=np.array([Touch(canary)], dtype=object))
    write_zip(path, {**contents, "model.weights.npz": data.getvalue()})


@hostile("rule 9", "`config.json` is missing")
def no_config(good, path, canary):
    write_zip(path, {k: v for k, v in members(good.keras).items() if k != CONFIG})


@hostile("rule 9", "`model.weights.h5` is missing")
def no_weights(good, path, canary):
    write_zip(path, {k: v for k, v in members(good.keras).items() if k != WEIGHTS})


# Other formats under our names: rules 4 and 9.


@hostile("CVE-2025-9905", "an HDF5 file, expected a zip")
def legacy_model_renamed(good, path, canary):
    path.write_bytes(good.weights.read_bytes())


@hostile("CVE-2025-9905", "does not end in", ".h5")
def legacy_model(good, path, canary):
    with h5py.File(path, "w") as file:
        config = layer("Lambda", {"function": [code_of(canary)["code"], None, None]})
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [config]})


@hostile("rule 4", "begins with")
def a_pickle(good, path, canary):
    path.write_bytes(pickle.dumps(Touch(canary)))


@hostile("CVE-2025-12060", "begins with")
def a_tar_with_links(good, path, canary):
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("assets/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)


@hostile("none", "it begins with other bytes, expected a zip archive")
def link_to_another_file(good, path, canary):
    secret = path.parent / "secret"
    secret.write_bytes(b"hunter2:x")
    path.symlink_to(secret)


@hostile("rule 9", "begins with a zip archive", ".weights.h5")
def archive_as_weights(good, path, canary):
    path.write_bytes(good.keras.read_bytes())


@hostile("rule 4", "does not end in", ".npz")
def pickled_npz(good, path, canary):
    np.savez(path, x=np.array([Touch(canary)], dtype=object))


@hostile("PR #22896", "it is a folder")
def unzipped_model(good, path, canary):
    path.mkdir()
    for name, data in members(good.keras).items():
        (path / name).write_bytes(data)


@hostile("PR #22839", "it is a folder", "")
def orbax_folder(good, path, canary):
    (path / "0" / "pytree").mkdir(parents=True)
    (path / "0" / "_CHECKPOINT_METADATA").write_text("{}")
    (path / "0" / "pytree" / "_METADATA").write_text("{}")


@hostile("rule 9", "not a regular file")
def a_pipe(good, path, canary):
    os.mkfifo(path)


@hostile("rule 9", "it is empty")
def empty_file(good, path, canary):
    path.touch()
