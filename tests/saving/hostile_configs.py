"""Hostile configurations: code, names of anything, paths, hijacked names, bombs."""

import base64
import pickle
from pathlib import Path

import keras
import numpy as np
from saving.cases import layer, with_config, with_layer, with_weights
from saving.hostile import Touch, code_of, hostile


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def popen(canary):
    return layer("Popen", {"args": ["touch", str(canary)]}, "subprocess", "Popen")


# Text that would flood the screen or clear it.


@hostile("none", r"at `model\..*names 'other>x+\.\.\.x+', which is neither")
def name_of_megabytes(good, path, canary):
    with_layer(good, path, {**layer("A", {}), "registered_name": "other>" + "x" * (4 << 20)})


@hostile("none", r"at `model\.\\x1b\[2J")
def key_that_clears_the_screen(good, path, canary):
    with_config(good, path, lambda config: config["config"].update({"\x1b[2J": popen(canary)}))


@hostile("none", "Popen")
def key_that_is_half_a_character(good, path, canary):
    with_config(good, path, lambda config: config["config"].update({"\ud800": popen(canary)}))


# Code in the configuration: rules 1, 3 and 4.


@hostile("CVE-2024-3660, CVE-2026-12481", "Lambda.*never loaded")
def lambda_layer(good, path, canary):
    with_layer(
        good,
        path,
        layer("Lambda", {"function": {"class_name": "__lambda__", "config": code_of(canary)}}),
    )


@hostile("CVE-2024-3660", "Python code.*never loaded")
def lambda_as_activation(good, path, canary):
    value = {"class_name": "__lambda__", "config": code_of(canary)}
    with_layer(good, path, layer("Dense", {"units": 2, "activation": value}))


@hostile("CVE-2024-3660", "Lambda.*never loaded")
def lambda_by_internal_module(good, path, canary):
    config = {"function": {"class_name": "__lambda__", "config": code_of(canary)}}
    with_layer(good, path, layer("Lambda", config, "keras.src.layers.core.lambda_layer"))


@hostile("CVE-2025-1550", "Popen.*custom_objects")
def any_class(good, path, canary):
    with_layer(good, path, popen(canary))


@hostile("CVE-2025-1550", "function `os.system`")
def any_function(good, path, canary):
    with_layer(good, path, layer("Dense", {"units": 2, "activation": function("os", "system")}))


@hostile("CVE-2025-1550", "inbound|Popen")
def any_class_in_build_config(good, path, canary):
    def change(config):
        config["config"]["layers"][1]["build_config"] = {"input_shape": popen(canary)}

    with_config(good, path, change)


@hostile("CVE-2025-8747", "function `keras.utils.get_file`")
def function_of_keras(good, path, canary):
    value = function("keras.utils", "get_file")
    with_layer(good, path, layer("Dense", {"units": 2, "activation": value}))


@hostile("CVE-2025-8747", "get_file.*custom_objects")
def function_of_keras_as_class(good, path, canary):
    config = {"origin": Path(good.keras).as_uri(), "fname": str(canary)}
    with_layer(good, path, layer("get_file", config, "keras.utils"))


@hostile("CVE-2025-9906", "enable_unsafe_deserialization")
def unsafe_switch(good, path, canary):
    def change(config):
        call = layer("enable_unsafe_deserialization", {}, "keras.config")
        inner = {"function": {"class_name": "__lambda__", "config": code_of(canary)}}
        config["config"]["layers"] += [call, layer("Lambda", inner)]

    with_config(good, path, change)


@hostile("rule 3", "not a saved object")
def safe_mode_field(good, path, canary):
    with_config(good, path, lambda config: config.update(safe_mode=False))


@hostile("CVE-2025-49655", "TorchModuleWrapper.*pickle")
def torch_module(good, path, canary):
    blob = base64.b64encode(pickle.dumps(Touch(canary))).decode()
    with_layer(good, path, layer("TorchModuleWrapper", {"module": blob, "name": "torch"}))


@hostile("CVE-2026-1462", "TFSMLayer.*SavedModel")
def saved_model_layer(good, path, canary):
    with_layer(good, path, layer("TFSMLayer", {"filepath": str(canary), "name": "saved"}))


@hostile("rule 4", "JaxLayer.*functions")
def jax_layer(good, path, canary):
    with_layer(good, path, layer("JaxLayer", {"call_fn": function("os", "system")}))


@hostile("rule 1", "custom_objects")
def module_to_import(good, path, canary):
    with_layer(good, path, layer("Task", {}, "keras_hub.models"))


@hostile("rule 1", "not a saved object")
def type_spec(good, path, canary):
    spec = {
        "class_name": "__typespec__",
        "spec_name": "Popen",
        "module": "subprocess",
        "config": [],
    }
    with_layer(good, path, layer("Dense", {"units": spec}))


@hostile("rule 4", "type 'object'")
def array_of_objects(good, path, canary):
    value = {"class_name": "__numpy__", "config": {"value": ["x"], "dtype": "object"}}
    with_layer(good, path, layer("Rescaling", {"scale": value}))


# What the optimizer, loss and metrics of `compile` name.


def with_compile(good, path, **changes):
    with_config(good, path, lambda config: config["compile_config"].update(changes))


@hostile("optimizer", "Popen")
def optimizer_class(good, path, canary):
    with_compile(good, path, optimizer=popen(canary))


@hostile("optimizer", "Lambda|Python code")
def schedule_with_code(good, path, canary):
    rate = {"class_name": "__lambda__", "config": code_of(canary)}
    with_compile(good, path, optimizer=layer("Adam", {"learning_rate": rate}, "keras.optimizers"))


@hostile("optimizer", "function `os.system`")
def loss_function(good, path, canary):
    with_compile(good, path, loss=function("os", "system"))


@hostile("optimizer", "function `builtins.eval`")
def metric_function(good, path, canary):
    with_compile(good, path, metrics=[[function("builtins", "eval")]])


@hostile("optimizer", "arrays that the model has no place for|optimizer")
def optimizer_state_of_another(good, path, canary):
    with_weights(good, path, lambda file: file["optimizer/vars"].create_dataset("99", data=1.0))


@hostile("optimizer", "optimizer/vars/3.*shape")
def optimizer_state_shape(good, path, canary):
    def change(file):
        del file["optimizer/vars/3"]
        file["optimizer/vars/3"] = np.zeros((7, 7), "float32")

    with_weights(good, path, change)


# Paths and addresses in the configuration: rule 5.


@hostile("CVE-2025-12058", "no path or address")
def vocabulary_path(good, path, canary):
    with_layer(good, path, layer("StringLookup", {"vocabulary": "/etc/passwd"}))


@hostile("CVE-2025-12058", "no path or address")
def vocabulary_address(good, path, canary):
    with_layer(good, path, layer("TextVectorization", {"vocabulary": "http://127.0.0.1:9/words"}))


@hostile("CVE-2025-12058", "no path or address")
def idf_path(good, path, canary):
    config = {"vocabulary": ["a"], "idf_weights": "/etc/passwd", "output_mode": "tf_idf"}
    with_layer(good, path, layer("IntegerLookup", config))


# Names that stand for other things: rule 2.


class Evil(keras.layers.Dense):
    """A layer that some other library has registered with Keras."""

    def __init__(self, *args, **kwargs):
        Path(CANARIES[-1]).touch()
        super().__init__(*args, **kwargs)


CANARIES = []


def register_evil(canary):
    CANARIES.append(canary)
    keras.saving.get_custom_objects()["other>Evil"] = Evil


@hostile("keras#22779", "registered name 'other>Evil'")
def registered_name_over_builtin(good, path, canary):
    register_evil(canary)
    with_layer(good, path, layer("Dense", {"units": 2}, registered="other>Evil"))


@hostile("keras#22779", "other>Evil.*custom_objects")
def class_of_another_library(good, path, canary):
    register_evil(canary)
    with_layer(good, path, layer("Evil", {"units": 2}, "other", "other>Evil"))


@hostile("keras#22779", "do not belong together")
def our_name_with_another_class(good, path, canary):
    with_layer(good, path, layer("Evil", {}, "ember_keras", "ember_keras>CausalLM"))


@hostile("keras#22779", "name of a registered object")
def registered_object_as_text(good, path, canary):
    register_evil(canary)
    with_layer(good, path, layer("Dense", {"units": 2, "activation": "other>Evil"}))


@hostile("rule 2", "another class")
def shared_object_of_another_class(good, path, canary):
    def change(config):
        layers = config["config"]["layers"]
        layers[1]["shared_object_id"] = layers[2]["shared_object_id"] = 7

    with_config(good, path, change)


@hostile("rule 8", "without separators")
def separators_in_a_name(good, path, canary):
    with_layer(good, path, layer("Dense", {"units": 2, "name": "../../evil"}))


# Configurations of ours.


def with_ours(good, path, **arguments):
    config = {"name": "lm", "vocab_size": 4, "width": 4, **arguments}
    build = {"input_shape": [1, 4]}
    model = layer("CausalLM", config, "ember_keras", "ember_keras>CausalLM", build_config=build)
    with_config(good, path, lambda _: model)


@hostile("rule 1", "os.system")
def our_unknown_type(good, path, canary):
    with_ours(good, path, blocks=[{"type": "os.system", "command": f"touch {canary}"}])


@hostile("rule 1", "Lambda.*never loaded")
def our_nested_lambda(good, path, canary):
    config = {"function": {"class_name": "__lambda__", "config": code_of(canary)}}
    with_ours(good, path, blocks=[layer("Lambda", config)])


@hostile("rule 1", "Popen")
def our_nested_class(good, path, canary):
    with_ours(good, path, blocks=[{"type": "fft_conv", "filter": popen(canary)}])


@hostile("rule 1", "pickled")
def our_unknown_key(good, path, canary):
    with_ours(good, path, blocks=[{"type": "attention", "pickled": "x"}])


@hostile("none", "`CausalLM` received the unknown argument 'foo'")
def our_unknown_argument(good, path, canary):
    with_ours(good, path, foo=1)


@hostile("none", r"built \(`CausalLM` received width='16' \(str\), expected an int\)\. It")
def our_width_in_words(good, path, canary):
    with_ours(good, path, width="16")


@hostile("none", r"built \(`CausalLM` received width=nan \(float\), expected an int\)\. It")
def our_width_of_no_number(good, path, canary):
    with_ours(good, path, width=float("nan"))


@hostile("none", r"built \('Dense': Unrecognized keyword arguments passed to Dense: \{'foo': 1\}")
def unknown_argument_of_a_layer(good, path, canary):
    with_layer(good, path, layer("Dense", {"units": 2, "foo": 1}))


@hostile("rule 7", "at most 10000 blocks")
def our_endless_repeats(good, path, canary):
    with_ours(good, path, repeats=10**9)


@hostile("rule 7", "too many layers")
def our_many_repeats(good, path, canary):
    with_ours(good, path, repeats=5000)


@hostile("rule 7", "times what the file holds")
def our_huge_width(good, path, canary):
    with_ours(good, path, width=2**24)


@hostile("rule 7", "times what the file holds")
def huge_layer(good, path, canary):
    with_layer(good, path, layer("Dense", {"units": 2**40}))
