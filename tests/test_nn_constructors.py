"""Arguments of layers that no forward could use: one error when the layer is made."""

import pytest

from smelt import nn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 2), "Linear: in_features must be a whole number of at least 1, got 0"),
        (lambda: nn.Linear(2, -1), "Linear: out_features must be a whole number of at least 1, got -1"),
        (lambda: nn.Linear(2.0, 1), "Linear: in_features must be a whole number of at least 1, got 2.0"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4), "Conv2d: groups must divide 4 and 6 channels, got 4"),
        (
            lambda: nn.Conv2d(4, 6, (3, 0)),
            "Conv2d: kernel_size must be a whole number or a pair of them, of at least 1, got (3, 0)",
        ),
        (lambda: nn.Conv1d(3, 6, 3, groups=2), "Conv1d: groups must divide 3 and 6 channels, got 2"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: channels must be a whole number of at least 1, got 0"),
        (lambda: nn.LayerNorm(0), "LayerNorm: features must be a whole number of at least 1, got 0"),
        (lambda: nn.RMSNorm(2.5), "RMSNorm: features must be a whole number of at least 1, got 2.5"),
        (lambda: nn.RMSNorm(3, eps=0), "RMSNorm: eps must be a finite number above 0, got 0"),
        (lambda: nn.GroupNorm(4, 6), "GroupNorm: groups must divide 6 channels, got 4"),
        (lambda: nn.GroupNorm(0, 6), "GroupNorm: groups must be a whole number of at least 1, got 0"),
        (lambda: nn.InstanceNorm2d(0), "InstanceNorm2d: channels must be a whole number of at least 1, got 0"),
        (lambda: nn.Embedding(4, 2, padding_index=4), "Embedding: padding_index must be in [0, 4), got 4"),
        (lambda: nn.Dropout(1.0), "Dropout: p must be in [0, 1), got 1.0"),
        (lambda: nn.Dropout(float("nan")), "Dropout: p must be in [0, 1), got nan"),
        (
            lambda: nn.Conv2d(1, 1, 3, stride=0),
            "Conv2d: stride must be a whole number or a pair of them, of at least 1, got 0",
        ),
        (
            lambda: nn.Conv2d(1, 1, 3, stride=(1, 2, 3)),
            "Conv2d: stride must be a whole number or a pair of them, of at least 1, got (1, 2, 3)",
        ),
        (
            lambda: nn.Conv2d(1, 1, 3, dilation=(1, 0)),
            "Conv2d: dilation must be a whole number or a pair of them, of at least 1, got (1, 0)",
        ),
        (
            lambda: nn.Conv2d(1, 1, 3, padding=-1),
            "Conv2d: padding must be a whole number or a pair of them, of at least 0, got -1",
        ),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), "Conv2d: padding must be a number, 'same' or 'valid', got 'full'"),
        (lambda: nn.Conv2d(1, 1, 3, groups=0), "Conv2d: groups must be a whole number of at least 1, got 0"),
        (lambda: nn.Conv1d(1, 1, 3, stride=-1), "Conv1d: stride must be a whole number of at least 1, got -1"),
        (lambda: nn.Conv1d(1, 1, 3, dilation=1.5), "Conv1d: dilation must be a whole number of at least 1, got 1.5"),
        (
            lambda: nn.Conv1d(1, 1, 3, padding=(1, 1)),
            "Conv1d: padding must be a whole number of at least 0, got (1, 1)",
        ),
        (
            lambda: nn.MaxPool2d(0),
            "MaxPool2d: kernel_size must be a whole number or a pair of them, of at least 1, got 0",
        ),
        (
            lambda: nn.MaxPool2d(2, stride=-1),
            "MaxPool2d: stride must be a whole number or a pair of them, of at least 1, got -1",
        ),
        (
            lambda: nn.AvgPool2d("2"),
            "AvgPool2d: kernel_size must be a whole number or a pair of them, of at least 1, got '2'",
        ),
        (lambda: nn.AvgPool2d(2, padding=(0, 2)), "AvgPool2d: padding must be at most half the kernel, 2, got (0, 2)"),
        (lambda: nn.MaxPool1d((2, 2)), "MaxPool1d: kernel_size must be a whole number of at least 1, got (2, 2)"),
        (lambda: nn.AvgPool1d(2, stride=0), "AvgPool1d: stride must be a whole number of at least 1, got 0"),
        (
            lambda: nn.AdaptiveAvgPool2d(0),
            "AdaptiveAvgPool2d: output_size must be a whole number or a pair of them, of at least 1, got 0",
        ),
        (lambda: nn.BatchNorm1d(3, momentum=5), "BatchNorm1d: momentum must be in [0, 1], got 5"),
        (lambda: nn.BatchNorm1d(3, eps=-1), "BatchNorm1d: eps must be a finite number above 0, got -1"),
        (lambda: nn.LayerNorm(3, eps=float("nan")), "LayerNorm: eps must be a finite number above 0, got nan"),
        (lambda: nn.LayerNorm(3, eps="x"), "LayerNorm: eps must be a finite number above 0, got 'x'"),
        (lambda: nn.LeakyReLU("a"), "LeakyReLU: slope must be a finite number, got 'a'"),
        (lambda: nn.ELU(float("inf")), "ELU: alpha must be a finite number, got inf"),
        (lambda: nn.GELU("exact"), "GELU: approximate must be 'none' or 'tanh', got 'exact'"),
        (lambda: nn.Softmax("rows"), "Softmax: axis must be a whole number, got 'rows'"),
        (lambda: nn.Flatten(1.5), "Flatten: start_axis must be a whole number, got 1.5"),
        (lambda: nn.Dropout("a"), "Dropout: p must be in [0, 1), got 'a'"),
        (lambda: nn.Embedding(4, 2, "a"), "Embedding: padding_index must be in [0, 4), got 'a'"),
        (
            lambda: nn.Linear(2, 2, activation="swish"),
            "Linear: activation must be None or one of relu, tanh, sigmoid, gelu, gelu_tanh, silu, got 'swish'",
        ),
        (
            lambda: nn.BatchNorm2d(2, activation="tanh"),
            "BatchNorm2d: activation must be None or one of relu, got 'tanh'",
        ),
    ],
)
def test_constructor_errors(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
