"""Hostile HDF5, each inside a `.keras` and as `.weights.h5` (rules 6 and 7)."""

import pickle

import h5py
import numpy as np
from saving.cases import with_weights, write_weights
from saving.hostile import HOSTILE, hostile


def hostile_weights(rule, says):
    """Registers a change of the weights file, once for each of the two formats."""

    def register(change):
        for suffix in (".keras", ".weights.h5"):

            def make(good, path, canary):
                with_weights(good, path, lambda file: change(file, path))

            HOSTILE[f"{change.__name__}_in{suffix.replace('.', '_')}"] = (make, rule, says, suffix)
        return change

    return register


def replaced(file, name):
    """Removes an array, and returns its group and key, for something else in its place."""
    del file[name]
    group, _, key = name.rpartition("/")
    return file[group], key


FIRST = "layers/dense/vars/0"


@hostile_weights("CVE-2026-1669", "SoftLink")
def soft_link(file, path):
    group, key = replaced(file, FIRST)
    group[key] = h5py.SoftLink("/optimizer/vars/2")


@hostile_weights("PR #23163", "SoftLink")
def soft_link_in_the_middle(file, path):
    file.move("layers/dense", "elsewhere")
    file["layers/dense"] = h5py.SoftLink("/elsewhere")


@hostile_weights("CVE-2026-1669", "ExternalLink")
def external_link(file, path):
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as other:
        other["x"] = np.zeros((3, 4), "float32")
    group, key = replaced(file, FIRST)
    group[key] = h5py.ExternalLink(str(secret), "/x")


@hostile_weights("CVE-2026-1669", "data in another file")
def external_storage(file, path):
    secret = path.with_name("secret.bin")
    secret.write_bytes(bytes(48))
    group, key = replaced(file, FIRST)
    group.create_dataset(key, (3, 4), "float32", external=[(str(secret), 0, 48)])


@hostile_weights("CVE-2026-1669", "put together")
def virtual_dataset(file, path):
    layout = h5py.VirtualLayout((3, 4), "float32")
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5")), "x", (3, 4))
    group, key = replaced(file, FIRST)
    group.create_virtual_dataset(key, layout)


@hostile_weights("rule 6", "second name")
def cycle(file, path):
    file["layers/dense/again"] = file["layers"]


@hostile_weights("rule 7", "second name")
def one_array_twice(file, path):
    group, key = replaced(file, FIRST)
    group[key] = file["optimizer/vars/2"]


@hostile_weights("CVE-2026-0897", "declares .* bytes, but 0 are stored")
def huge_shape(file, path):
    group, key = replaced(file, FIRST)
    group.create_dataset(key, (2**20, 2**20), "float32")


@hostile_weights("CVE-2026-0897, PR #22975", "in pieces or compressed")
def huge_compressed(file, path):
    group, key = replaced(file, FIRST)
    group.create_dataset(key, (2**20, 2**20), "float32", chunks=(1024, 1024), compression="gzip")


@hostile_weights("rule 6", "other than numbers")
def array_of_text(file, path):
    group, key = replaced(file, FIRST)
    group[key] = np.array([b"x"] * 12).reshape(3, 4)


@hostile_weights("rule 6", "other than numbers")
def array_of_references(file, path):
    group, key = replaced(file, FIRST)
    group[key] = np.array([file.ref] * 12, dtype=h5py.ref_dtype).reshape(3, 4)


@hostile_weights("rule 6", "has int data, expected float")
def integers_for_floats(file, path):
    group, key = replaced(file, FIRST)
    group[key] = np.zeros((3, 4), "int32")


@hostile_weights("rule 6", r"shape \(4, 3\), expected \(3, 4\)")
def another_shape(file, path):
    group, key = replaced(file, FIRST)
    group[key] = np.zeros((4, 3), "float32")


@hostile_weights("rule 6", "1 of the 14 arrays.*dense/vars/0")
def missing_array(file, path):
    del file[FIRST]


@hostile_weights("rule 6", "no place for")
def array_too_many(file, path):
    file["layers/dense/vars/7"] = np.zeros(3, "float32")


@hostile_weights("rule 6", "1 of the 14 arrays")
def group_for_an_array(file, path):
    group, key = replaced(file, FIRST)
    group.create_group(key)


@hostile_weights("rule 7", "levels")
def deep_groups(file, path):
    file.create_group("/".join(["x"] * 5000))


@hostile_weights("rule 6", "attribute 'pickle'")
def strange_attribute(file, path):
    file.attrs["pickle"] = np.void(pickle.dumps("x"))


@hostile("rule 6", "cannot be read|driver", ".weights.h5")
def weights_with_no_content(good, path, canary):
    write_weights(good, path, b"\x89HDF\r\n\x1a\n" + bytes(4000))
