"""Adapters on the modules that are named, and on no fewer."""

from __future__ import annotations

import pytest
from fakes.toys import toy_model

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.lora import LoraSpec, with_lora


@pytest.mark.parametrize(
    "targets", ["nosuch", "q_proj,nosuch", "", "proj", "input_layernorm", "q_proj,input_layernorm"]
)
def test_a_name_that_no_layer_answers_to_is_refused_with_those_that_one_does(targets: str) -> None:
    with pytest.raises(MuarlError, match="no adapter can be put on") as caught:
        with_lora(toy_model(), LoraSpec(2, 4.0, targets), 1)
    assert caught.value.code is ExitCode.CONFIG and "q_proj" in caught.value.next_step


def test_the_modules_that_are_named_get_an_adapter_and_no_others() -> None:
    model = with_lora(toy_model(), LoraSpec(2, 4.0, "q_proj, v_proj"), 1)
    trained = {name.split(".lora_")[0].rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}
