"""The public surface is small, and changes on purpose: change these lists with it."""

import importlib

import pytest

import ember_keras

ROOMS = """
backend blocks callbacks config interop layers models ops pipelines registry tasks
""".split()

SURFACE = {
    "": ["EmberTensor", "load_model", "save_model", *ROOMS],
    "blocks": """
        Block FFTConvBlock HybridBlock HyenaBlock LSTMBlock MambaBlock MoEBlock RWKVBlock Repeat
        TransformerBlock xLSTMBlock
    """.split(),
    "layers": """
        Attention AttentionCombiner Bidirectional CfC ChannelMixer Combiner Concatenation
        DecayFilter DeltaNet DenseExperts DenseMixer DynamicRouter EluFeatures ExpandedMLSTM
        ExpertChoiceRouter Experts ExplicitFilter ExplicitWiring FFTConv FeatureMap Filter
        FullWiring GRU GatedDeltaNet GatedLinearAttention GatedMLP GatedMLPExperts H3 HGRN HGRN2
        HashRouter HedgehogFeatures Hyena HyenaExpert HyenaExperts ImplicitFilter
        KimiDeltaAttention LRU LSTM LTC LinearAttention MLP MLPExperts MLSTM Mamba Mamba2 MinGRU
        MinLSTM MixtureOfExperts MultiheadHyena NCPWiring NoisyTopKRouter Pooled RGLRU
        RWKV4ChannelMixer RWKV4TimeMixer RWKV5ChannelMixer RWKV5TimeMixer RWKV6ChannelMixer
        RWKV6TimeMixer RWKV7ChannelMixer RWKV7TimeMixer RandomWiring RationalFilter ReluFeatures
        Retention Router S4D S4DFilter SLSTM SequenceMixer SigmoidRouter SinkhornRouter
        SlidingAttention SoftRouter SoftmaxRouter TaylorFeatures Top1 TransformerExpert
        WeightedSum ZeroCentredRMSNorm
    """.split(),
    "models": """
        Autoencoder CausalLM Estimate FeatureExtractor ForecastMetric Forecaster LoadError
        MaskedLM Past Piece PinballLoss
        SequenceClassifier SequenceModel SequenceRegressor Stream TokenClassifier decay_groups
        estimate exclude_from_decay from_pretrained load_model load_tokenizer load_weights presets
        save_model save_pretrained save_weights
    """.split(),
    "interop": "keras_layers mambapy ncps torch_nn transformers xlstm".split(),
    "callbacks": """
        BudgetedSchedule CompileEachLength RouterReport SaveEveryEpoch StopOnNaN TimeBudget
    """.split(),
}


@pytest.mark.parametrize("room", SURFACE)
def test_surface(room):
    module = importlib.import_module(f"ember_keras.{room}".rstrip("."))
    assert sorted(module.__all__) == sorted(SURFACE[room])


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_name_is_there(room):
    module = importlib.import_module(f"ember_keras.{room}".rstrip("."))
    assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ember_keras.nothing
