"""`native` and `fast-transformers` are the same models: same weights, same outputs, same gradients."""

import sys
from pathlib import Path

import pytest
import torch
from fast_transformers.attention import AttentionLayer, FullAttention, LinearAttention
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness import checkpoint
from models.attention import library
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS, Backend
from models.transformer import InpaintingTransformer, ModelConfig

BACKENDS: tuple[Backend, Backend] = ("native", "fast-transformers")
BOTH = ["msa", "mlsa"]
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-10}
SMALL = ModelConfig(width=16, depth=2, heads=2, feed_forward=32, patch_side=4, window_side=3)


def test_the_two_models_of_the_thesis_have_both_backends() -> None:
    assert [name for name, variant in VARIANTS.items() if set(variant.attention) >= set(BACKENDS)] == BOTH


def test_the_librarys_backend_is_the_librarys_own_layer() -> None:
    for name, kind in (("msa", FullAttention), ("mlsa", LinearAttention)):
        layer = VARIANTS[name].attention["fast-transformers"](Sizes(8, 2, 9))
        assert type(layer) is AttentionLayer
        assert type(layer.inner_attention) is kind


def pair(name: str, sizes: Sizes, dtype: torch.dtype) -> list[nn.Module]:
    """Return the attention on both backends, with the same weights, large enough to tell tokens apart."""
    modules = [VARIANTS[name].attention[backend](sizes).to(dtype) for backend in BACKENDS]
    with torch.no_grad():
        for parameter in modules[0].parameters():
            parameter.mul_(2)
    modules[1].load_state_dict(modules[0].state_dict())
    return modules


def outcome(attention: nn.Module, x_btd: Tensor, gradient_btd: Tensor) -> dict[str, Tensor]:
    """Return the output, and the gradients of the input and of every parameter."""
    x_btd = x_btd.clone().requires_grad_()
    mixed_btd = attention(x_btd)
    mixed_btd.backward(gradient_btd)
    gradients = {name: parameter.grad for name, parameter in attention.named_parameters()}
    return {"output": mixed_btd.detach(), "input": x_btd.grad, **gradients}


def is_zero_in_exact_arithmetic(name: str, model: str, tokens: int) -> bool:
    """Of these gradients only rounding is left.

    Softmax does not see what is added to all keys alike; a single token is its own mean, whatever queries and keys say
    (of linear attention: but for the stabilizer of a millionth).
    """
    return (model == "msa" and name == "key_projection.bias") or (
        tokens == 1 and name.startswith(("query_projection", "key_projection"))
    )


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("model", BOTH)
@settings(max_examples=25)
@given(
    batch=st.integers(1, 64),
    tokens=st.integers(1, 256),
    heads=st.integers(1, 4),
    head_width=st.integers(2, 16),
    seed=st.integers(0, 2**32),
)
@example(batch=1, tokens=1, heads=1, head_width=2, seed=0)
@example(batch=64, tokens=1, heads=2, head_width=8, seed=0)
@example(batch=1, tokens=256, heads=2, head_width=8, seed=0)
@example(batch=64, tokens=256, heads=2, head_width=8, seed=0)
@example(batch=16, tokens=49, heads=8, head_width=64, seed=0)
def test_backends_agree_in_output_and_every_gradient(
    model: str, dtype: torch.dtype, batch: int, tokens: int, heads: int, head_width: int, seed: int
) -> None:
    """The error of a tensor is its largest, relative to the tensor's largest value.

    Of a gradient whose terms cancel, rounding of the terms is left: it is compared with a tenth of the layer's largest
    gradient where that is larger, and with all of it where the gradient is nothing else.
    """
    torch.manual_seed(seed)
    sizes = Sizes(heads * head_width, heads, tokens)
    x_btd, gradient_btd = torch.randn(2, batch, tokens, sizes.width, dtype=dtype)
    ours, theirs = (outcome(module, x_btd, gradient_btd) for module in pair(model, sizes, dtype))
    largest = {name: tensor.abs().max() for name, tensor in theirs.items()}
    of_layer = torch.stack([largest[name] for name in largest if name.endswith(("weight", "bias"))]).max()
    for name, expected in theirs.items():
        scale = largest[name] if name == "output" else torch.maximum(largest[name], of_layer / 10)
        if is_zero_in_exact_arithmetic(name, model, tokens):
            scale = of_layer
        error = (ours[name] - expected).abs().max() / scale
        assert error <= RELATIVE[dtype], f"{name}: {error:.1e}"


def test_masks_that_were_made_without_gradients_serve_with_them() -> None:
    """They are made once for a shape, and may be made first where autograd is off."""
    library._masks.cache_clear()
    attention = VARIANTS["mlsa"].attention["fast-transformers"](Sizes(8, 2, 9))
    with torch.inference_mode():
        attention(torch.rand(2, 9, 8))
    attention(torch.rand(2, 9, 8)).sum().backward()


def transformer(name: str, backend: Backend) -> InpaintingTransformer:
    return InpaintingTransformer(name, SMALL.model_copy(update={"attention_backend": backend}), 25).double()


@pytest.mark.parametrize(("one", "other"), [BACKENDS, BACKENDS[::-1]])
@pytest.mark.parametrize("name", BOTH)
def test_a_checkpoint_of_either_backend_gives_the_same_model_on_the_other(
    name: str, one: Backend, other: Backend, tmp_path: Path
) -> None:
    written, read = transformer(name, one), transformer(name, other)
    checkpoint.save(tmp_path / "best.pt", {"model": written.state_dict(), "epoch": 1})
    checkpoint.load_weights(read, tmp_path / "best.pt", torch.device("cpu"), 1)
    context_bkp, positions_bt = torch.rand(5, 8, 48).double(), torch.randint(25, (5, 9))
    torch.testing.assert_close(read(context_bkp, positions_bt), written(context_bkp, positions_bt), rtol=1e-10, atol=0)
    for model in (written, read):
        model(context_bkp, positions_bt).square().sum().backward()
    for (name_one, a), (name_other, b) in zip(written.named_parameters(), read.named_parameters(), strict=True):
        assert name_one == name_other
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-13, msg=name_one)


@pytest.mark.parametrize("name", BOTH)
def test_the_same_seed_draws_the_same_weights_on_either_backend(name: str) -> None:
    states = []
    for backend in BACKENDS:
        torch.manual_seed(7)
        states.append(transformer(name, backend).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0].keys() | states[1].keys())


def test_a_library_that_is_absent_or_broken_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.unusable() is None
    monkeypatch.setitem(sys.modules, "fast_transformers.attention", None)
    assert "fast_transformers.attention" in (library.unusable() or "")
