import pytest

from jaxmed.errors import UserError
from jaxmed.nn.prune_ratio import prune_ratios, warm_up_factors

DEPTHS = (2, 2, 6, 2)


def test_one_number_serves_all_blocks_and_lists_serve_stages_or_blocks():
    assert prune_ratios(0.3, (1, 2)) == ((0.3,), (0.3, 0.3))
    assert prune_ratios([0.5, [0, 0.25]], (1, 2)) == ((0.5,), (0.0, 0.25))


def test_presets_are_sparsevits_configurations():
    low = prune_ratios("sparsevit_low", DEPTHS)
    assert low == ((0.3, 0.3), (0.0, 0.0), (0.1, 0.1, 0.2, 0.2, 0.2, 0.2), (0.0, 0.0))
    assert [prune_ratios(f"sparsevit_{name}", DEPTHS)[0][0] for name in ("middle", "high")] == [0.6, 0.7]


@pytest.mark.parametrize(
    ("ratio", "message"),
    [(1.0, r"stage 1 has .* in \[0, 1\)"), (-0.1, "stage 1"), ((0.3, 0.3), "has 2 stages; the network has 4"),
     ((0, 0, (0.1, 0.2), 0), "stage 3 has .* 6 numbers"), ("sparsevit", "'sparsevit_low', 'sparsevit_middle'")],
)  # fmt: skip
def test_bad_ratios_say_what_is_needed(ratio, message):
    with pytest.raises(UserError, match=message):
        prune_ratios(ratio, DEPTHS)


def test_ratios_grow_together_over_the_first_epochs_in_few_steps():
    assert [warm_up_factors(e)[0] for e in range(7)] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert warm_up_factors(2) == (0.4,) * 4
    assert len({warm_up_factors(e, 50) for e in range(60)}) == 6
    assert warm_up_factors(0, 0) == (1.0,) * 4


def test_or_stage_after_stage():
    found = [warm_up_factors(e, 8, by="layer") for e in range(10)]
    assert [sum(factors) for factors in found] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and found[6] == (1, 1, 1, 0)
    with pytest.raises(UserError, match="by='step'"):
        warm_up_factors(0, by="step")
